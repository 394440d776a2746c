-- include: gate collector
-- Hands ended tasks to a collector, each to one only: `collected` says to whom, and under which number of its calls.
-- What a collector was given counts as handed out for good once it says so, by naming the number of that call; what
-- one holds that is gone is given back (`uncollect`). A call that is sent again gets the same answer. Of a collector
-- whose name begins with '~' the tasks are removed then (`forget`), and control says that there are such.
-- KEYS: control collected index feeds finished failures.  ARGV: epoch, collector, number of the call, number up to
--   which all was handed out, the collector's process, how far it has read (lib/collector), then the keys.
-- Reply: {'ok', 1 (this call's) or 0 (another's, or no task: it was never sent) per key, tasks removed so far or '',
--   1 where the controller had been held to be gone}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'gone')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
heed(KEYS[1], ARGV[2], ARGV[4], ARGV[5])
local missed = note_feed({control = KEYS[1], feeds = KEYS[4], finished = KEYS[5], failures = KEYS[6]}, ARGV[2], ARGV[6])
if not c[2] and string.sub(ARGV[2], 1, 1) == '~' then
  redis.call('HSET', KEYS[1], 'gone', '0')
  c[2] = '0'
end
local verdicts, mine = {}, ARGV[2] .. ':' .. ARGV[3]
for i = 7, #ARGV do
  local there = redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1
  local new = there and redis.call('HSETNX', KEYS[2], ARGV[i], mine) == 1
  verdicts[i - 6] = (new or redis.call('HGET', KEYS[2], ARGV[i]) == mine) and 1 or 0
end
return {'ok', verdicts, c[2] or '', missed}
