-- Moves queued tasks to a worker. Claims are numbered per worker: a late duplicate of a claim gets the
-- stored answer, never another task.

-- The record of the next queued task, in the order of the queue; entries whose task has left the queue
-- meanwhile (cancelled, or queued anew under another attempt) are skipped.
local function next_queued(queue, queued)
  while true do
    local entry = redis.call('LPOP', queue)
    if not entry then return nil end
    local cut = string.find(entry, '\0', 1, true)
    local key = cut and string.sub(entry, 1, cut - 1) or entry
    local value = redis.call('HGET', queued, key)
    if value then
      local _, attempt = cmsgpack.unpack_one(value, 0)
      if attempt == (cut and tonumber(string.sub(entry, cut + 1)) or 1) then return key, value end
    end
  end
end

-- The entry of the order list for an attempt; the first attempt's is the bare key.
local function queue_entry(key, attempt)
  return attempt == 1 and key or key .. '\0' .. string.format('%d', attempt)
end

local function replay(running, worker, answer)
  local values = {}
  for i = 2, #answer do
    local value = redis.call('HGET', running, answer[i])
    if value and string.sub(value, 1, #worker) == worker then values[#values + 1] = value end
  end
  return values
end

-- Claims up to n tasks under number `seq`; `worker` is the packed worker id. Returns the running records.
-- One that was asked to leave (letter d) gets no more.
local function claim(keys, wid, worker, seq, n, me, now)
  local stored = me.claim
  if me.letter == 'd' then n = 0 end
  if stored then
    local answer = cmsgpack.unpack(stored)
    if seq <= answer[1] then return replay(keys.running, worker, answer) end
  end
  local stamp, values, answer = cmsgpack.pack(now), {}, {seq}
  while #values < n do
    local key, value = next_queued(keys.queue, keys.queued)
    if not key then
      redis.call('DEL', keys.bell)
      break
    end
    redis.call('HDEL', keys.queued, key)
    value = worker .. value .. stamp
    redis.call('HSET', keys.running, key, value)
    values[#values + 1] = value
    answer[#answer + 1] = key
  end
  redis.call('HSET', keys.control, 'c:' .. wid, cmsgpack.pack(answer))
  return values
end
