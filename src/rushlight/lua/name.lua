-- include: gate
-- Gives a name to a call that is about to be made, unless an uncollected call has it. Sent again, it says the same.
-- KEYS: control names index collected.  ARGV: epoch, name, key of the call.
-- Reply: {'ok', key of the call that has the name}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
for _, key in ipairs({redis.call('HGET', KEYS[2], ARGV[2]) or ARGV[3], ARGV[2]}) do
  local known = redis.call('HEXISTS', KEYS[3], key) == 1
  if key ~= ARGV[3] and known and redis.call('HEXISTS', KEYS[4], key) == 0 then return {'ok', key} end
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'ok', ARGV[3]}
