-- What becomes of the tasks of workers that are no more. Needs gate, settle, claim.

-- `gone`: worker id -> {condition = packed map, requeue = bool}. One pass over the running tasks, however
-- many workers went. A task goes back to the queue only where its worker's policy says so and a try is
-- left; else it fails. Returns the keys that failed and those queued again.
local function lose(keys, gone, now)
  local stamp, failed, again = cmsgpack.pack(now), {}, {}
  local all = redis.call('HGETALL', keys.running)
  for i = 1, #all, 2 do
    local key, value = all[i], all[i + 1]
    local at_attempt, wid = cmsgpack.unpack_one(value, 0)
    local fate = gone[wid]
    if fate then
      local at_opts, attempt = cmsgpack.unpack_one(value, at_attempt)
      local _, opts = cmsgpack.unpack_one(value, at_opts)
      redis.call('HDEL', keys.running, key)
      if fate.requeue and type(opts) == 'table' and attempt <= (opts.r or 0) then
        redis.call('HSET', keys.queued, key,
          cmsgpack.pack(attempt + 1) .. string.sub(value, at_opts + 1, #value - 9))
        redis.call('RPUSH', keys.queue, queue_entry(key, attempt + 1))
        again[#again + 1] = key
      else
        fail(keys.failed, keys.failures, key, value, fate.condition, stamp)
        redis.call('HINCRBY', keys.tallies, 'x:' .. wid, 1)
        failed[#failed + 1] = key
      end
    end
  end
  -- Also where nothing was queued again: the worker may have taken the bell's token with it.
  if redis.call('HLEN', keys.queued) > 0 then ring(keys.bell) end
  return failed, again
end

-- Ends a worker's membership under a final letter; false where it had ended before.
local function retire(keys, wid, status, letter)
  local was = string.sub(status, 1, 1)
  redis.call('ZREM', keys.leases, wid)
  redis.call('HDEL', keys.control, 'c:' .. wid)
  if was ~= 's' and was ~= 'r' and was ~= 'd' then return false end
  redis.call('HSET', keys.control, 'w:' .. wid, letter .. string.sub(status, 2))
  return true
end

local function wants_requeue(keys, wid)
  local stored = redis.call('HGET', keys.workers, wid)
  if not stored then return false end
  local at_card = cmsgpack.unpack_one(stored, 0)
  local _, card = cmsgpack.unpack_one(stored, at_card)
  return card.on_lost == 'requeue'
end
