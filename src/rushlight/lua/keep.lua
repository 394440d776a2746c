-- include: gate
-- Stores values by their digests: spilled values, start arguments.
-- KEYS: control, the hash.  ARGV: epoch, then pairs: digest, bytes.
-- Reply: {'ok', number new}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
local new = 0
for i = 2, #ARGV, 2 do new = new + redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) end
return {'ok', new}
