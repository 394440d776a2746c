-- include: gate answers
-- Names the start arguments for workers that were told none, from now on, and orders running workers to change
-- to them. Sent again, it changes nothing.
-- KEYS: control events orders answers.
-- ARGV: epoch, call, milliseconds to keep its answer, digest, order (packed, '' for none).
-- Reply: {'ok'}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local before = answered(KEYS[4], ARGV[2])
if before then return before end
redis.call('HSET', KEYS[1], 'loop', ARGV[4])
announce(KEYS[2], c[2], clock())
if ARGV[5] ~= '' then redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'o', ARGV[5]) end
return answer(KEYS[4], ARGV[2], ARGV[3], {'ok'})
