-- include: gate line settle
-- Puts failed tasks back into the line, behind those that are there, for their next attempt. One that has
-- used up its retries stays, unless they are to be ignored; one with no limit of its own always may.
-- KEYS: control index running finished failed failures tallies events, then the line.
-- ARGV: epoch, '1' to ignore the limits, '1' for the next seed, then the keys.
-- Reply: {'ok', keys queued now}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local keys = settling_keys()
local now, queued = clock(), {}
local stamp = cmsgpack.pack(now)
for i = 4, #ARGV do
  local key = ARGV[i]
  local value = redis.call('HGET', keys.failed, key)
  if value then
    local at_size = cmsgpack.unpack_one(value, 0)
    local at_condition, size = cmsgpack.unpack_one(value, at_size)
    local at_attempt = cmsgpack.unpack_one(value, at_condition + size)
    local at_opts, attempt = cmsgpack.unpack_one(value, at_attempt)
    local at_key, opts = cmsgpack.unpack_one(value, at_opts)
    opts = type(opts) == 'table' and opts or nil
    if ARGV[2] == '1' or not (opts and opts.r) or attempt <= opts.r then
      if ARGV[3] == '1' then
        opts = opts or {}
        opts.n = (opts.n or 0) + 1
      end
      local head = opts and cmsgpack.pack(opts) or '\192'
      redis.call('HDEL', keys.failed, key)
      redis.call('HSET', keys.lapses, key, string.sub(value, at_condition + 1, at_condition + size))
      local record = cmsgpack.pack(attempt + 1) .. head .. string.sub(value, at_key + 1, #value - 9)
      redis.call('HSET', keys.queued, key, record)
      if not held_back(keys, key, record, opts, stamp) then line_up(keys, line_entry(key, attempt + 1), opts) end
      -- One whose prerequisite has failed fails again at once.
      if redis.call('HEXISTS', keys.queued, key) == 1 then queued[#queued + 1] = key end
    end
  end
end
if #queued > 0 then
  redis.call('HSET', keys.control, 'line', '1')
  announce(keys.events, c[2], now)
end
return {'ok', queued}
