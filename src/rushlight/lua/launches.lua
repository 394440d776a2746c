-- include: gate
-- Notes launches, so that everybody counts their workers from now on; of one noted before it was launched, what is
-- told of it later takes the place.
-- KEYS: control launches.  ARGV: epoch, the turn in which it was decided ('': nobody's), then pairs: worker id, what
--   is told of its launch (packed).
-- Reply: {'ok', 1, or 0 where the turn is over and nothing was noted}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'lead')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
-- A call that is sent again may find that its turn was over since, but then its first launch is there.
if ARGV[2] ~= '' and redis.call('HEXISTS', KEYS[2], ARGV[3]) == 0
  and (not c[2] or cmsgpack.unpack(c[2])[1] ~= ARGV[2]) then return {'ok', 0} end
for i = 3, #ARGV, 2 do
  local before = redis.call('HGET', KEYS[2], ARGV[i])
  if not before or cmsgpack.unpack(before).id == '' then redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
return {'ok', 1}
