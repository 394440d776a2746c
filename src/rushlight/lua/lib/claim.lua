-- Moves queued tasks to a worker. Claims are numbered per worker: a late duplicate of a claim gets the
-- stored answer, never another task. Needs gate, line.

local function replay(running, worker, answer)
  local values = {}
  for i = 2, #answer do
    local value = redis.call('HGET', running, answer[i])
    if value and string.sub(value, 1, #worker) == worker then values[#values + 1] = value end
  end
  return values
end

-- Claims up to n tasks under number `seq`; `worker` is the packed worker id. Returns the running records, and
-- in how many microseconds a delayed task becomes due (-1: none). Who was asked to leave gets no more.
local function claim(keys, wid, worker, seq, n, me, now)
  if me.claim then
    local answer = cmsgpack.unpack(me.claim)
    if seq <= answer[1] then return replay(keys.running, worker, answer), -1 end
  end
  if me.letter == 'd' then n = 0 end
  local stamp, values, answer = cmsgpack.pack(now), {}, {seq}
  local due = keys.full and line_up_due(keys, now)
  while #values < n do
    local key, value, at, attempt = next_queued(keys, wid)
    if not key then
      -- Once a draining network's queue is empty the token stays, for every waiter to hear of it.
      local needed = (me.drain and redis.call('HLEN', keys.queued) == 0)
        or (keys.full and redis.call('ZCARD', keys.private) > 0)
      if not needed then redis.call('DEL', keys.bell) end
      break
    end
    redis.call('HDEL', keys.queued, key)
    if keys.full then
      local _, opts = cmsgpack.unpack_one(value, at)
      if type(opts) == 'table' and opts.t then
        local deadline = string.format('%.0f', now + opts.t * 1000000)
        redis.call('ZADD', keys.deadlines, deadline, line_entry(key, attempt))
      end
    end
    value = worker .. value .. stamp
    redis.call('HSET', keys.running, key, value)
    values[#values + 1] = value
    answer[#answer + 1] = key
  end
  redis.call('HSET', keys.control, 'c:' .. wid, cmsgpack.pack(answer))
  if #values > 0 then
    announce(keys.events, me.watch, now)
    if me.drain and redis.call('HLEN', keys.queued) == 0 then ring(keys.bell) end
  end
  return values, due and due - now or -1
end
