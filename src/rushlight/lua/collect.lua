-- include: gate
-- Hands ended tasks to a collector, each to one only: `collected` says to whom, and under which number of its calls.
-- What a collector was given counts as handed out for good once it says so, by naming the number of that call; what
-- one holds that is gone is given back (`uncollect`). A call that is sent again gets the same answer.
-- KEYS: control collected index.  ARGV: epoch, collector, number of the call, number up to which all was handed
--   out, the collector's process, then the keys.
-- Reply: {'ok', 1 (this call's) or 0 (another's, or no task: it was never sent) per key}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
local before, handed_out = redis.call('HGET', KEYS[1], 'k:' .. ARGV[2]), tonumber(ARGV[4])
-- A call that comes late takes nothing back of what was said since.
if before then handed_out = math.max(handed_out, cmsgpack.unpack(before)[1]) end
redis.call('HSET', KEYS[1], 'k:' .. ARGV[2], cmsgpack.pack({handed_out, clock(), ARGV[5]}))
local verdicts, mine = {}, ARGV[2] .. ':' .. ARGV[3]
for i = 6, #ARGV do
  local there = redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1
  local new = there and redis.call('HSETNX', KEYS[2], ARGV[i], mine) == 1
  verdicts[i - 5] = (new or redis.call('HGET', KEYS[2], ARGV[i]) == mine) and 1 or 0
end
return {'ok', verdicts}
