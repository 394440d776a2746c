-- include: gate settle
-- Fails queued tasks: the named ones, or all of them.
-- KEYS: control queued queue ranked private delayed bell failed failures events.
-- ARGV: epoch, condition, '1' for all, then the keys if not all.
-- Reply: {'ok', keys that failed now}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local now, dropped = clock(), {}
local stamp = cmsgpack.pack(now)
local function drop(key, value)
  fail(KEYS[8], KEYS[9], key, '\192' .. value .. '\207\0\0\0\0\0\0\0\0', ARGV[2], stamp)
  dropped[#dropped + 1] = key
end
if ARGV[3] == '1' then
  local order = redis.call('LRANGE', KEYS[3], 0, -1)
  local left = redis.call('HGETALL', KEYS[2])
  local records = {}
  for i = 1, #left, 2 do records[left[i]] = left[i + 1] end
  for _, entry in ipairs(order) do
    local key = string.match(entry, '^[^%z]+')
    if records[key] then drop(key, records[key]) records[key] = nil end
  end
  for i = 1, #left, 2 do
    if records[left[i]] then drop(left[i], left[i + 1]) end
  end
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
else
  for i = 4, #ARGV do
    local value = redis.call('HGET', KEYS[2], ARGV[i])
    if value then
      redis.call('HDEL', KEYS[2], ARGV[i])
      drop(ARGV[i], value)
    end
  end
end
if #dropped > 0 then announce(KEYS[10], c[2], now) end
return {'ok', dropped}
