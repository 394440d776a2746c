-- include: gate line settle answers
-- Puts failed tasks back into the line, behind those that are there, for their next attempt. One that has
-- used up its retries stays, unless they are to be ignored; one with no limit of its own always may. One whose
-- prerequisite is failed stays too. Sent again, it gives the first answer.
-- KEYS: control index running finished tallies events failed failures, then the line, then answers.
-- ARGV: epoch, call, milliseconds to keep its answer, '1' to ignore the limits, '1' for the next seed, then the keys.
-- Reply: {'ok', keys queued now}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local keys = settling_keys()
keys.answers = KEYS[20]
local before = answered(keys.answers, ARGV[2])
if before then return before end
though_full(KEYS[1])
local now, queued, asked = clock(), {}, {}

-- The parts of a failed record: attempt, options, who had it and with what condition, and the inputs.
local function opened(value)
  local at_size = cmsgpack.unpack_one(value, 0)
  local at_condition, size = cmsgpack.unpack_one(value, at_size)
  local at_attempt = cmsgpack.unpack_one(value, at_condition + size)
  local at_opts, attempt = cmsgpack.unpack_one(value, at_attempt)
  local at_key, opts = cmsgpack.unpack_one(value, at_opts)
  local condition = string.sub(value, at_condition + 1, at_condition + size)
  local lapse = string.sub(value, at_condition + size + 1, at_opts) .. condition
  return attempt, type(opts) == 'table' and opts or nil, lapse, string.sub(value, at_key + 1, #value - 9)
end

-- Retries one task, its prerequisites first where they are asked for too.
local function retry(key)
  if not asked[key] then return end
  asked[key] = nil
  local value = redis.call('HGET', keys.failed, key)
  if not value then return end
  local attempt, opts, lapse, rest = opened(value)
  if ARGV[4] ~= '1' and opts and opts.r and attempt > opts.r then return end
  for _, other in ipairs(opts and opts.a or {}) do
    retry(other)
    if redis.call('HEXISTS', keys.failed, other) == 1 then return end
  end
  if ARGV[5] == '1' then
    opts = opts or {}
    opts.n = (opts.n or 0) + 1
  end
  local record = cmsgpack.pack(attempt + 1) .. (opts and cmsgpack.pack(opts) or '\192') .. rest
  redis.call('HDEL', keys.failed, key)
  redis.call('HSET', keys.lapses, key, lapse)
  redis.call('HSET', keys.queued, key, record)
  if not held_back(keys, key, record, opts, cmsgpack.pack(now)) then line_up(keys, line_entry(key, attempt + 1), opts) end
  queued[key] = true
end

for i = 6, #ARGV do asked[ARGV[i]] = true end
for i = 6, #ARGV do retry(ARGV[i]) end
note_dependents(keys)
local went = {}
for i = 6, #ARGV do
  if queued[ARGV[i]] then went[#went + 1] = ARGV[i] end
  queued[ARGV[i]] = nil
end
if #went > 0 then
  redis.call('HSET', keys.control, 'line', '1')
  announce(keys.events, c[2], now)
end
return answer(keys.answers, ARGV[2], ARGV[3], {'ok', went})
