-- include: gate
-- Names the start arguments for workers that were told none, from now on, and orders running workers to change
-- to them.
-- KEYS: control events orders.
-- ARGV: epoch, digest, order (packed, '' for none).
-- Reply: {'ok'}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
redis.call('HSET', KEYS[1], 'loop', ARGV[2])
announce(KEYS[2], c[2], clock())
if ARGV[3] ~= '' then redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'o', ARGV[3]) end
return {'ok'}
