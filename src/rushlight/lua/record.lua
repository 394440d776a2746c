-- include: gate line settle
-- Creates tasks in a final state: results known before (warm start, import).
-- KEYS: control index finished failed failures events.
-- ARGV: epoch, then per task: key, head, 'f' or 'x', payload (ys and ys_extra, or the condition).
-- Reply: {'ok', number created}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local now, created = clock(), 0
local stamp = cmsgpack.pack(now)
for i = 2, #ARGV, 4 do
  local key, kind = ARGV[i], ARGV[i + 2]
  if redis.call('HSETNX', KEYS[2], key, '') == 1 then
    created = created + 1
    local value = '\192\1' .. ARGV[i + 1] .. stamp .. cmsgpack.pack(redis.call('HLEN', KEYS[2]))
      .. '\207\0\0\0\0\0\0\0\0'
    if kind == 'f' then
      local length = redis.call('RPUSH', KEYS[3], '\156' .. value .. stamp .. ARGV[i + 3])
      redis.call('HSET', KEYS[2], key, string.format('%d', length - 1))
    else
      store_failed({failed = KEYS[4], failures = KEYS[5]}, key, value, ARGV[i + 3], stamp)
    end
  end
end
announce(KEYS[6], c[2], now)
return {'ok', created}
