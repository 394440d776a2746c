-- include: gate collector
-- Hands ended tasks to a collector, each to one only: `collected` says to whom, and under which number of its calls.
-- What a collector was given counts as handed out for good once it says so, by naming the number of that call; what
-- one holds that is gone is given back (`uncollect`). A call that is sent again gets the same answer. A packet that
-- comes late takes nothing: of what its sender did not get then, it would not know. Of a collector
-- whose name begins with '~' the tasks are removed then (`forget`), and control says that there are such.
-- KEYS: control collected index feeds finished failures.  ARGV: epoch, collector, number of the call, number up to
--   which all was handed out, the collector's process, how far it has read, number of the packet (lib/collector),
--   then the keys.
-- Reply: {'ok', 1 (this call's) or 0 (another's, or no task: it was never sent) per key, tasks removed so far or '',
--   1 where the controller waits and had been held to be gone, with which packet it has begun or 0 where it is gone},
--   or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'gone')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local news, began = heed(KEYS[1], ARGV[2], ARGV[4], ARGV[5], ARGV[7])
local feeds = {control = KEYS[1], feeds = KEYS[4], finished = KEYS[5], failures = KEYS[6]}
local missed = news and note_feed(feeds, ARGV[2], ARGV[6]) or 0
if not c[2] and string.sub(ARGV[2], 1, 1) == '~' then
  redis.call('HSET', KEYS[1], 'gone', '0')
  c[2] = '0'
end
local verdicts, mine = {}, ARGV[2] .. ':' .. ARGV[3]
for i = 8, #ARGV do
  local there = news and redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1
  local new = there and redis.call('HSETNX', KEYS[2], ARGV[i], mine) == 1
  verdicts[i - 7] = (new or redis.call('HGET', KEYS[2], ARGV[i]) == mine) and 1 or 0
end
return {'ok', verdicts, c[2] or '', missed, began}
