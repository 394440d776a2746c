-- include: gate
-- Stores where an object is kept that lies in a file: whoever says so first is right. A resent call finds
-- its own words and is told so again.
-- KEYS: control, the hash of the object, files.  ARGV: epoch, digest, reference, field in files.
-- Reply: {'ok', 1 if this reference is the one, 0 if there was another}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
if redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3]) == 1 then
  redis.call('HSET', KEYS[3], ARGV[4], ARGV[3])
end
return {'ok', redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[3] and 1 or 0}
