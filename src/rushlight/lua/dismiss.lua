-- include: gate
-- Forgets workers that have ended, with all that is known of them. Not one that is another by now, or is about to come
-- back, nor one whose launch is noted still: who launched it is to see its end.
-- KEYS: control workers ends usage tallies launches, then the bell of each worker.
-- ARGV: epoch, then per worker: id, what `w:` of control says of it.
-- Reply: {'ok'}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
for i = 2, #ARGV, 2 do
  local wid, said = ARGV[i], ARGV[i + 1]
  local there = redis.call('HGET', KEYS[1], 'w:' .. wid) == said and redis.call('HEXISTS', KEYS[6], wid) == 0
  if there and not is_live(said) and not is_interrupted(said) then
    redis.call('HDEL', KEYS[1], 'w:' .. wid, 'r:' .. wid, 'u:' .. wid, 'c:' .. wid)
    for at = 2, 4 do redis.call('HDEL', KEYS[at], wid) end
    redis.call('HDEL', KEYS[5], 'f:' .. wid, 'x:' .. wid)
    redis.call('UNLINK', KEYS[6 + i / 2])
  end
end
return {'ok'}
