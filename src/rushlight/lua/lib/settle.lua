-- Decides running tasks, first writer wins. `who` (packed worker id and attempt) opens every running
-- record, so that a prefix comparison is the whole fence.

-- 1: ours to decide, or decided by this very attempt before; 0: somebody else decided; nil: no such key.
local function standing(index, running, finished, failed, key, who)
  local value = redis.call('HGET', running, key)
  if value then return string.sub(value, 1, #who) == who and 1 or 0, value end
  local at = redis.call('HGET', index, key)
  if not at then return nil end
  return 0, nil, at
end

-- A resent verdict: was this task already decided the same way by this attempt?
local function decided_so(finished, failed, at, key, who, kind)
  if at ~= '' then
    return kind == 'f' and string.sub(redis.call('LINDEX', finished, at), 2, #who + 1) == who and 1 or 0
  end
  if kind ~= 'x' then return 0 end
  local value = redis.call('HGET', failed, key)
  if not value then return 0 end
  local at_size = cmsgpack.unpack_one(value, 0)
  local at_condition, size = cmsgpack.unpack_one(value, at_size)
  local at_record = at_condition + size
  return string.sub(value, at_record + 1, at_record + #who) == who and 1 or 0
end

local function finish(index, running, finished, key, value, payload, stamp)
  redis.call('HDEL', running, key)
  local length = redis.call('RPUSH', finished, '\156' .. value .. stamp .. payload)
  redis.call('HSET', index, key, string.format('%d', length - 1))
end

-- The record goes to the failed state behind its time and condition. The condition's size stands before
-- it: it may hold anything the client can encode, and cmsgpack knows neither bin nor ext.
local function fail(failed, failures, key, value, condition, stamp)
  redis.call('HSET', failed, key, stamp .. cmsgpack.pack(#condition) .. condition .. value)
  redis.call('RPUSH', failures, key)
end

-- Settles a batch: ARGV from `first` on in fours: key, 'f' or 'x', who, payload. All keys are looked at
-- before the first write, so an unknown one leaves everything as it was. Returns the refusal, or nil and
-- the list of 1 (decided by this worker) and 0 (by another).
local function settle(keys, wid, first, last, now)
  local plan, unknown = {}, {}
  for i = first, last, 4 do
    local ours, value, at = standing(keys.index, keys.running, keys.finished, keys.failed, ARGV[i], ARGV[i + 2])
    if ours == nil then unknown[#unknown + 1] = ARGV[i] end
    plan[#plan + 1] = {i, ours, value, at}
  end
  if #unknown > 0 then return {'UNKNOWN', unknown} end
  local stamp, verdicts, done, lost = cmsgpack.pack(now), {}, 0, 0
  for n, step in ipairs(plan) do
    local i, ours, value, at = step[1], step[2], step[3], step[4]
    local key, kind, payload = ARGV[i], ARGV[i + 1], ARGV[i + 3]
    -- The same key twice in one batch: the second sees what the first did.
    if ours == 1 and n > 1 and redis.call('HEXISTS', keys.running, key) == 0 then
      ours, at = 0, redis.call('HGET', keys.index, key)
    end
    if ours == 1 and kind == 'f' then
      finish(keys.index, keys.running, keys.finished, key, value, payload, stamp)
      done = done + 1
    elseif ours == 1 then
      redis.call('HDEL', keys.running, key)
      fail(keys.failed, keys.failures, key, value, payload, stamp)
      lost = lost + 1
    elseif at then
      ours = decided_so(keys.finished, keys.failed, at, key, ARGV[i + 2], kind)
    end
    verdicts[n] = ours
  end
  if done > 0 then redis.call('HINCRBY', keys.tallies, 'f:' .. wid, done) end
  if lost > 0 then redis.call('HINCRBY', keys.tallies, 'x:' .. wid, lost) end
  return nil, verdicts
end
