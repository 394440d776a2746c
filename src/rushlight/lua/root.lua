-- include: gate author
-- The root of all seeds: the first one given stays. Where none is given, clients derive one from the epoch;
-- the first who does so fixes it, as no other may be given once tasks have had theirs.
-- KEYS: control queued.
-- ARGV: epoch, worker id or '' (a manager), token, seed to be set or '' (asks for what is in force).
-- Reply: {'ok' or letter, queued or -1, seed in force or '' (derived)}, or a refusal of the gate.
local refused, reply = author_gate(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local c = redis.call('HMGET', KEYS[1], 'seed', 'derived')
if not c[1] and not c[2] then
  redis.call('HSET', KEYS[1], ARGV[4] ~= '' and 'seed' or 'derived', ARGV[4])
  if ARGV[4] ~= '' then c[1] = ARGV[4] end
end
reply[3] = c[1] or ''
return reply
