-- include: gate
-- Deletes a network, or only its tasks. Workers of a network that goes are named, so that their bells go
-- with it; one that came meanwhile is told to the caller, which stops it and calls again.
-- KEYS (whole network): control workers, then every other key, then the bell of each worker.
-- KEYS (tasks only): control, then the keys of task data.
-- ARGV: epoch, 'all' or 'tasks', new epoch, then the workers' ids.
-- Reply: {'ok', keys deleted}, or {'WORKERS', ids not named}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
if ARGV[2] == 'tasks' then
  local fields = redis.call('HKEYS', KEYS[1])
  for _, field in ipairs(fields) do
    if string.sub(field, 1, 2) == 'c:' or field == 'drain' or field == 'line' or field == 'places' then redis.call('HDEL', KEYS[1], field) end
  end
  -- A new epoch, so that every reader drops what it had read; members keep their tokens and go on.
  redis.call('HSET', KEYS[1], 'epoch', ARGV[3])
  return {'ok', redis.call('UNLINK', unpack(KEYS, 2))}
end
local named, unknown = {}, {}
for i = 4, #ARGV do named[ARGV[i]] = true end
for _, wid in ipairs(redis.call('HKEYS', KEYS[2])) do
  if not named[wid] then unknown[#unknown + 1] = wid end
end
if #unknown > 0 then return {'WORKERS', unknown} end
return {'ok', redis.call('UNLINK', unpack(KEYS))}
