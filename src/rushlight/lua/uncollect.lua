-- include: gate
-- Gives back what a collector that is gone had been given and had not handed out, and forgets the collector.
-- KEYS: control collected feeds.  ARGV: epoch, collector, then pairs: key, what `collected` says of it.
-- Reply: {'ok', number given back}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
local back = 0
for i = 3, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then back = back + redis.call('HDEL', KEYS[2], ARGV[i]) end
end
redis.call('HDEL', KEYS[1], 'k:' .. ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
return {'ok', back}
