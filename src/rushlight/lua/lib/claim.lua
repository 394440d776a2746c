-- Moves queued tasks to a worker. Claims are numbered per worker: a late duplicate of a claim gets the
-- stored answer, never another task. Numbers are texts of fourteen digits, so that they compare as they are; an
-- answer is the number and the keys, with \0 between these. Needs gate, line.

local function replay(running, worker, answer)
  local values = {}
  for key in string.gmatch(string.sub(answer, 15), '[^%z]+') do
    local value = redis.call('HGET', running, key)
    if value and string.sub(value, 1, #worker) == worker then values[#values + 1] = value end
  end
  return values
end

-- Claims up to n tasks under number `number`; `worker` is the packed worker id. Returns the running records, and
-- in how many microseconds a delayed task becomes due (-1: none). Who was asked to leave gets no more.
local function claim(keys, wid, worker, number, n, me, now)
  if me.claim and number <= string.sub(me.claim, 1, 14) then return replay(keys.running, worker, me.claim), -1 end
  if me.letter == 'd' then n = 0 end
  local stamp, values, answer = cmsgpack.pack(now), {}, {}
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
  redis.call('HSET', keys.control, 'c:' .. wid, number .. table.concat(answer, '\0'))
  if #values > 0 then
    announce(keys.events, me.watch, now)
    if me.drain and redis.call('HLEN', keys.queued) == 0 then ring(keys.bell) end
  end
  return values, due and due - now or -1
end
