-- Decides running tasks, first writer wins. `who` (packed worker id and attempt) opens every running
-- record, so that a prefix comparison is the whole fence. Needs gate, line.

-- A failed record: the running one behind the time and the condition. The condition's size stands before it: it
-- may hold anything the client can encode, and cmsgpack knows neither bin nor ext.
local function failed_record(value, condition, stamp)
  return stamp .. cmsgpack.pack(#condition) .. condition .. value
end

local function store_failed(keys, key, value, condition, stamp)
  redis.call('HSET', keys.failed, key, failed_record(value, condition, stamp))
  redis.call('RPUSH', keys.failures, key)
end

local NONE = '\207\0\0\0\0\0\0\0\0'

-- A task has failed for good: so do those that waited for it, and those that waited for them.
local function fail(keys, key, value, condition, stamp)
  store_failed(keys, key, value, condition, stamp)
  if not keys.full then return end
  local todo = {key}
  while #todo > 0 do
    local failed = table.remove(todo)
    local packed = redis.call('HGET', keys.dependents, failed)
    if packed then
      redis.call('HDEL', keys.dependents, failed)
      for _, waiter in ipairs(cmsgpack.unpack(packed)) do
        local record = redis.call('HGET', keys.queued, waiter)
        if record and redis.call('HDEL', keys.waiting, waiter) == 1 then
          redis.call('HDEL', keys.queued, waiter)
          local said = cmsgpack.pack({message = 'Prerequisite failed: ' .. failed, type = 'PrerequisiteFailed'})
          store_failed(keys, waiter, '\192' .. record .. NONE, said, stamp)
          todo[#todo + 1] = waiter
          -- Those who wait for a draining queue to be empty hear of it.
          if redis.call('HLEN', keys.queued) == 0 then ring(keys.bell) end
        end
      end
    end
  end
end

-- Tells whether a queued task must wait for others, or has failed with one of them; else it may join the line.
-- `note_dependents` is to follow.
local function held_back(keys, key, value, opts, stamp)
  local unmet = {}
  for _, other in ipairs(opts and opts.a or {}) do
    local at = redis.call('HGET', keys.index, other)
    if at == '' and redis.call('HEXISTS', keys.failed, other) == 1 then
      local said = cmsgpack.pack({message = 'Prerequisite failed: ' .. other, type = 'PrerequisiteFailed'})
      redis.call('HDEL', keys.queued, key)
      fail(keys, key, '\192' .. value .. NONE, said, stamp)
      return true
    end
    if at == '' then unmet[#unmet + 1] = other end
  end
  if #unmet == 0 then return false end
  redis.call('HSET', keys.waiting, key, cmsgpack.pack(unmet))
  keys.noted = keys.noted or {}
  for _, other in ipairs(unmet) do
    local waiters = keys.noted[other] or {}
    waiters[#waiters + 1] = key
    keys.noted[other] = waiters
  end
  return true
end

-- Writes down who waits for whom, as `held_back` has found it: once per script, as thousands may wait for one.
local function note_dependents(keys)
  for other, more in pairs(keys.noted or {}) do
    local packed = redis.call('HGET', keys.dependents, other)
    local waiters = packed and cmsgpack.unpack(packed) or {}
    for _, key in ipairs(more) do waiters[#waiters + 1] = key end
    redis.call('HSET', keys.dependents, other, cmsgpack.pack(waiters))
  end
end

-- A task has finished: those that waited for it alone join the line.
local function release(keys, key)
  local packed = redis.call('HGET', keys.dependents, key)
  if not packed then return end
  redis.call('HDEL', keys.dependents, key)
  for _, waiter in ipairs(cmsgpack.unpack(packed)) do
    local unmet = redis.call('HGET', keys.waiting, waiter)
    if unmet then
      local left = {}
      for _, other in ipairs(cmsgpack.unpack(unmet)) do
        if other ~= key then left[#left + 1] = other end
      end
      if #left > 0 then
        redis.call('HSET', keys.waiting, waiter, cmsgpack.pack(left))
      else
        redis.call('HDEL', keys.waiting, waiter)
        local value = redis.call('HGET', keys.queued, waiter)
        local at, attempt = cmsgpack.unpack_one(value, 0)
        local _, opts = cmsgpack.unpack_one(value, at)
        line_up(keys, line_entry(waiter, attempt), opts)
      end
    end
  end
end

-- Takes a running task back into the line for its next attempt, after its back-off; keeps who had the attempt
-- that ended, and its condition. `value` is the running record, `at` where its options begin.
local function again(keys, key, value, at, attempt, opts, condition, now)
  local entry = line_entry(key, attempt + 1)
  redis.call('HSET', keys.queued, key, cmsgpack.pack(attempt + 1) .. string.sub(value, at + 1, #value - 9))
  redis.call('HSET', keys.lapses, key, string.sub(value, 1, at) .. condition)
  if opts.b and opts.b > 0 then
    local pause = math.min(opts.b * 2 ^ (attempt - 1), 3600)
    line_up_later(keys, entry, now + pause * 1000000)
  else
    line_up(keys, entry, opts)
  end
end

-- The attempt at a running task has failed: the next one, if its options leave one; else it fails for good.
-- Returns whether it goes on.
local function lapse(keys, key, value, condition, stamp, now)
  if keys.full then
    local at_attempt = cmsgpack.unpack_one(value, 0)
    local at, attempt = cmsgpack.unpack_one(value, at_attempt)
    local _, opts = cmsgpack.unpack_one(value, at)
    if type(opts) == 'table' then
      if opts.t then redis.call('ZREM', keys.deadlines, line_entry(key, attempt)) end
      if attempt - (opts.k or 0) <= (opts.r or 0) then
        again(keys, key, value, at, attempt, opts, condition, now)
        return true
      end
    end
  end
  fail(keys, key, value, condition, stamp)
  return false
end

-- 1: ours to decide; 0: somebody else decided; nil: no such key.
local function standing(keys, key, who)
  local value = redis.call('HGET', keys.running, key)
  if value then return string.sub(value, 1, #who) == who and 1 or 0, value end
  local at = redis.call('HGET', keys.index, key)
  if not at then return nil end
  return 0, nil, at
end

-- A resent verdict: was this task already decided by this attempt, and in these very words? The same attempt may
-- have been failed by somebody else (killed, cancelled, lost), and a worker may contradict itself. One that has an
-- attempt left, or was retried, is told by what is kept of the attempt before.
local function decided_so(keys, at, key, who, kind, payload)
  if at ~= '' then
    local record = kind == 'f' and redis.call('LINDEX', keys.finished, at - base) or ''
    return string.sub(record, 2, #who + 1) == who and string.sub(record, -#payload) == payload and 1 or 0
  end
  if kind ~= 'x' then return 0 end
  local value = redis.call('HGET', keys.failed, key)
  if not value then
    return keys.full and redis.call('HGET', keys.lapses, key) == who .. payload and 1 or 0
  end
  local at_size = cmsgpack.unpack_one(value, 0)
  local at_condition = cmsgpack.unpack_one(value, at_size)
  local said = payload .. who
  return string.sub(value, at_condition + 1, at_condition + #said) == said and 1 or 0
end

-- What is left of a task that has finished, besides its record.
local function wind_up(keys, key, value)
  release(keys, key)
  local at_attempt = cmsgpack.unpack_one(value, 0)
  local at, attempt = cmsgpack.unpack_one(value, at_attempt)
  local _, opts = cmsgpack.unpack_one(value, at)
  if type(opts) == 'table' then
    if opts.t then redis.call('ZREM', keys.deadlines, line_entry(key, attempt)) end
    if attempt > 1 then redis.call('HDEL', keys.lapses, key) end
  end
end

local function finish(keys, key, value, payload, stamp)
  redis.call('HDEL', keys.running, key)
  local length = redis.call('RPUSH', keys.finished, '\156' .. value .. stamp .. payload)
  redis.call('HSET', keys.index, key, string.format('%d', length - 1 + base))
  if keys.full then wind_up(keys, key, value) end
end

-- Files the records of so many running tasks that are all finished now. False, and nothing is changed, where two of
-- them are one.
local function file_many(keys, n, names, values, records)
  if redis.call('HDEL', keys.running, unpack(names)) < n then
    for j = 1, n do redis.call('HSET', keys.running, names[j], values[j]) end
    return false
  end
  local before, places = redis.call('RPUSH', keys.finished, unpack(records)) - n + base, {}
  for j = 1, n do
    places[2 * j - 1], places[2 * j] = names[j], before + j - 1
  end
  redis.call('HSET', keys.index, unpack(places))
  for j = 1, keys.full and n or 0 do wind_up(keys, names[j], values[j]) end
  return true
end

-- Finishes a batch with as few commands as one task takes, where all is as it should be: results only, each of a
-- task of its own that this attempt holds. Returns how many, or nil where one by one is the way, before any write.
local function finish_many(keys, args, first, last, stamp)
  local n, names, values, records = 0, {}, {}, {}
  for i = first, last, 4 do
    n = n + 1
    names[n] = args[i + 2]
    if args[i] ~= 'f' then return nil end
  end
  if n > 1000 then return nil end
  for j, value in ipairs(redis.call('HMGET', keys.running, unpack(names))) do
    local i = first + 4 * (j - 1)
    local who = args[i + 1]
    if not value or string.sub(value, 1, #who) ~= who then return nil end
    values[j], records[j] = value, '\156' .. value .. stamp .. args[i + 3]
  end
  return file_many(keys, n, names, values, records) and n
end

-- Settles a batch: ARGV from `first` on in fours: 'f' or 'x', who, key, payload. All keys are looked at
-- before the first write, so an unknown one leaves everything as it was. Returns the refusal, or nil and
-- the list of 1 (decided by this worker) and 0 (by another). `gone`: a life that is over decides nothing more,
-- also where another goes by its id by now. `args`: what stands in the place of ARGV.
local function settle(keys, wid, first, last, now, gone, args)
  args = args or ARGV
  local stamp, verdicts, done, lost = cmsgpack.pack(now), {}, 0, 0
  local many = last - first > 3 and not gone and finish_many(keys, args, first, last, stamp)
  if many then
    redis.call('HINCRBY', keys.tallies, 'f:' .. wid, many)
    for n = 1, many do verdicts[n] = 1 end
    return nil, verdicts
  end
  local plan, unknown = {}, {}
  for i = first, last, 4 do
    local ours, value, at = standing(keys, args[i + 2], args[i + 1])
    if ours == nil then unknown[#unknown + 1] = args[i + 2] end
    if gone and ours == 1 then ours = 0 end
    plan[#plan + 1] = {i, ours, value, at}
  end
  -- Where tasks are removed once their results were collected, one that is not there has been decided.
  if #unknown > 0 and not redis.call('HGET', keys.control, 'gone') then return {'UNKNOWN', unknown} end
  for n, step in ipairs(plan) do
    local i, ours, value, at = step[1], step[2], step[3], step[4]
    local kind, who, key, payload = args[i], args[i + 1], args[i + 2], args[i + 3]
    -- The same key twice in one batch: the second sees what the first did.
    if ours == 1 and n > 1 and redis.call('HEXISTS', keys.running, key) == 0 then
      ours, at = 0, redis.call('HGET', keys.index, key)
    end
    if ours == 1 and kind == 'f' then
      finish(keys, key, value, payload, stamp)
      done = done + 1
    elseif ours == 1 then
      redis.call('HDEL', keys.running, key)
      lapse(keys, key, value, payload, stamp, now)
      lost = lost + 1
    else
      ours = decided_so(keys, at or '', key, who, kind, payload)
    end
    verdicts[n] = ours
  end
  if done > 0 then redis.call('HINCRBY', keys.tallies, 'f:' .. wid, done) end
  if lost > 0 then redis.call('HINCRBY', keys.tallies, 'x:' .. wid, lost) end
  return nil, verdicts
end

-- The same for results of one attempt each, all by `who`: ARGV has n keys from `first` on, then as many payloads. Where
-- all is as it should be, the second value is their number.
local function settle_firsts(keys, wid, who, first, n, now)
  local args, stamp, names, records, sub, size, values = ARGV, cmsgpack.pack(now), {}, {}, string.sub, #who, {}
  for j = 1, n do names[j] = args[first + j - 1] end
  if n <= 1000 then values = redis.call('HMGET', keys.running, unpack(names)) end
  for j, value in ipairs(values) do
    if not value or sub(value, 1, size) ~= who then break end
    records[j] = '\156' .. value .. stamp .. args[first + n + j - 1]
  end
  if #records == n and file_many(keys, n, names, values, records) then
    redis.call('HINCRBY', keys.tallies, 'f:' .. wid, n)
    return nil, n
  end
  local fours = {}
  for j = 1, n do
    local at = 4 * j
    fours[at - 3], fours[at - 2], fours[at - 1], fours[at] = 'f', who, names[j], args[first + n + j - 1]
  end
  return settle(keys, wid, 1, 4 * n, now, nil, fours)
end

-- The keys settling needs, from KEYS[2] on; those of the line follow. `finishing`: the call settles nothing but results,
-- in a network that uses the plain queue alone, and does not name what only failures touch.
local function settling_keys(finishing)
  local keys = {control = KEYS[1], index = KEYS[2], running = KEYS[3], finished = KEYS[4], tallies = KEYS[5],
    events = KEYS[6]}
  if finishing then return line_keys(keys, 7) end
  keys.failed, keys.failures = KEYS[7], KEYS[8]
  return line_keys(keys, 9)
end
