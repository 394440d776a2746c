-- include: gate line settle create
-- Creates tasks in a final state: results known before (warm start, import).
-- KEYS: control index finished failed failures events.
-- ARGV: epoch, 'f' or 'x', then the keys, as many heads, and as many payloads (ys and ys_extra, or the condition).
-- Reply: {'ok', number created}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch', 'gone', 'base')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local now, n, created = clock(), (#ARGV - 2) / 3, 0
local stamp = cmsgpack.pack(now)
local number = numbering(stamp)
for first = 3, n + 2, AT_ONCE do
  local places = newcomers(ARGV, KEYS[2], first, math.min(first + AT_ONCE - 1, n + 2))
  local seq, marks, keys, records, failed = redis.call('HLEN', KEYS[2]) + (c[3] or 0), {}, {}, {}, {}
  local finished = ARGV[2] == 'f' and redis.call('LLEN', KEYS[3]) + (c[4] or 0)
  for j, i in ipairs(places) do
    local key, payload = ARGV[i], ARGV[i + 2 * n]
    local lead, low = number(seq + j)
    local value = '\192\1' .. ARGV[i + n] .. lead .. low .. NONE
    keys[j], marks[2 * j - 1] = key, key
    if finished then
      marks[2 * j] = string.format('%d', finished + j - 1)
      records[j] = '\156' .. value .. stamp .. payload
    else
      marks[2 * j] = ''
      failed[2 * j - 1], failed[2 * j] = key, failed_record(value, payload, stamp)
    end
  end
  if #places > 0 then
    redis.call('HSET', KEYS[2], unpack(marks))
    if finished then
      redis.call('RPUSH', KEYS[3], unpack(records))
    else
      redis.call('HSET', KEYS[4], unpack(failed))
      redis.call('RPUSH', KEYS[5], unpack(keys))
    end
  end
  created = created + #places
end
announce(KEYS[6], c[2], now)
return {'ok', created}
