-- Moves queued tasks to a worker. Claims are numbered per worker: a late duplicate of a claim gets the
-- stored answer, never another task. Numbers are texts of fourteen digits, so that they compare as they are; an
-- answer is the number and the keys, with \0 between these, and one before the first where the worker may begin with
-- any but the first later (`took_ahead`). Needs gate, line.

local function replay(running, worker, answer)
  local values = {}
  for key in string.gmatch(string.sub(answer, 15), '[^%z]+') do
    local value = redis.call('HGET', running, key)
    if value and string.sub(value, 1, #worker) == worker then values[#values + 1] = value end
  end
  return values
end

-- Takes up to n tasks off a line that is the plain queue alone, with as few commands as one: keys, records, and
-- whether there are no more.
local function take_many(keys, n)
  local names, values, taken, dry = {}, {}, 0, false
  while taken < n and not dry do
    local found = redis.call('LPOP', keys.queue, n - taken)
    dry = not found
    for i, value in ipairs(found and redis.call('HMGET', keys.queued, unpack(found)) or {}) do
      -- None: it was cancelled.
      if value then
        taken = taken + 1
        names[taken], values[taken] = found[i], value
      end
    end
  end
  if taken > 0 then redis.call('HDEL', keys.queued, unpack(names)) end
  return names, values, dry
end

-- The same off a line of any kind. `ahead`: a task with a time limit, which begins to run when it is taken, is taken
-- alone.
local function take_each(keys, wid, n, now, ahead)
  local names, values = {}, {}
  while #names < n do
    local key, value, at, attempt = next_queued(keys, wid)
    if not key then return names, values, true end
    local _, opts = cmsgpack.unpack_one(value, at)
    local limit = type(opts) == 'table' and opts.t
    if limit and ahead and #names > 0 then
      line_up_first(keys, line_entry(key, attempt), opts)
      break
    end
    redis.call('HDEL', keys.queued, key)
    if limit then
      redis.call('ZADD', keys.deadlines, string.format('%.0f', now + limit * 1000000), line_entry(key, attempt))
      if ahead then n = 1 end
    end
    names[#names + 1], values[#values + 1] = key, value
  end
  return names, values, false
end

-- Claims up to n tasks under number `number`; `worker` is the packed worker id. Returns the running records, and
-- in how many microseconds a delayed task becomes due (-1: none). Who was asked to leave gets no more. `ahead`:
-- whether the worker does not begin with all of them at once.
local function claim(keys, wid, worker, number, n, me, now, ahead)
  if me.claim and number <= string.sub(me.claim, 1, 14) then return replay(keys.running, worker, me.claim), -1 end
  if me.letter == 'd' then n = 0 end
  local due = keys.full and line_up_due(keys, now)
  local names, values, dry
  -- More than a thousand at once are too much for a script's stack.
  if keys.full or n > 1000 then
    names, values, dry = take_each(keys, wid, n, now, ahead)
  else
    names, values, dry = take_many(keys, n)
  end
  if dry then
    -- Once a draining network's queue is empty the token stays, for every waiter to hear of it.
    local needed = (me.drain and redis.call('HLEN', keys.queued) == 0)
      or (keys.full and redis.call('ZCARD', keys.private) > 0)
    if not needed then redis.call('DEL', keys.bell) end
  end
  local stamp, mark = cmsgpack.pack(now), ahead and #names > 1 and '\0' or ''
  for first = 1, #names, 1000 do
    local records, at = {}, 0
    for i = first, math.min(first + 999, #names) do
      values[i] = worker .. values[i] .. stamp
      records[at + 1], records[at + 2] = names[i], values[i]
      at = at + 2
    end
    redis.call('HSET', keys.running, unpack(records))
  end
  redis.call('HSET', keys.control, 'c:' .. wid, number .. mark .. table.concat(names, '\0'))
  if #values > 0 then
    announce(keys.events, me.moves, now)
    if me.drain and redis.call('HLEN', keys.queued) == 0 then ring(keys.bell) end
  end
  return values, due and due - now or -1
end
