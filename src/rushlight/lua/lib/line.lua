-- The line of the queued tasks. `queued` holds their records; who is next is said by entries elsewhere: a
-- list for priority 0, and sorted sets for other priorities, for tasks of one worker, and for those that
-- wait for a time. An entry whose task is not queued under that attempt any more is passed over. Needs gate.

-- The entry of an attempt; the first attempt's is the bare key.
local function line_entry(key, attempt)
  return attempt == 1 and key or key .. '\0' .. string.format('%d', attempt)
end

-- The key and queued record an entry stands for; nil where it is stale.
local function entry_record(queued, entry)
  local cut = string.find(entry, '\0', 1, true)
  local key = cut and string.sub(entry, 1, cut - 1) or entry
  local value = redis.call('HGET', queued, key)
  if not value then return nil end
  local at, attempt = cmsgpack.unpack_one(value, 0)
  if attempt ~= (cut and tonumber(string.sub(entry, cut + 1)) or 1) then return nil end
  return key, value, at, attempt
end

-- Sorts entries of one score by the time they came.
local function place(control)
  return string.format('%014x', redis.call('HINCRBY', control, 'places', 1))
end

-- A worker for whom tasks may wait: it is a member, or its process is being replaced.
local function is_expected(keys, wid)
  local status = redis.call('HGET', keys.control, 'w:' .. wid)
  return is_live(status) or is_interrupted(status)
end

-- Puts an entry behind those of its kind. `alone`: not to its own worker, whatever the options say.
local function line_up(keys, entry, opts, alone)
  opts = type(opts) == 'table' and opts or {}
  if opts.w and not alone and is_expected(keys, opts.w) then
    redis.call('ZADD', keys.private, 0, opts.w .. '\0' .. place(keys.control) .. entry)
    if keys.own_bells and keys.own_bells[opts.w] then
      ring(keys.own_bells[opts.w])
    else
      -- Which worker hears a bell is not ours to choose: all that wait look, and one finds it.
      for _ = 1, redis.call('ZCARD', keys.leases) do redis.call('RPUSH', keys.bell, '1') end
    end
  elseif opts.p and opts.p ~= 0 then
    redis.call('ZADD', keys.ranked, -opts.p, place(keys.control) .. entry)
    ring(keys.bell)
  else
    redis.call('RPUSH', keys.queue, entry)
    ring(keys.bell)
  end
end

-- Puts an entry in front of those of its kind.
local function line_up_first(keys, entry, opts)
  opts = type(opts) == 'table' and opts or {}
  -- Sorts before all places, and before those that were put in front earlier.
  local function front() return string.format('-%013x', 2 ^ 51 - redis.call('HINCRBY', keys.control, 'places', 1)) end
  if opts.w and is_expected(keys, opts.w) then
    redis.call('ZADD', keys.private, 0, opts.w .. '\0' .. front() .. entry)
  elseif opts.p and opts.p ~= 0 then
    redis.call('ZADD', keys.ranked, -opts.p, front() .. entry)
  else
    redis.call('LPUSH', keys.queue, entry)
  end
  ring(keys.bell)
end

-- A task that waits for a time rings now: whoever hears learns when to look again.
local function line_up_later(keys, entry, due)
  redis.call('ZADD', keys.delayed, string.format('%.0f', due), entry)
  ring(keys.bell)
end

-- Tasks of a worker that is no more go to everybody.
local function share_private(keys, wid)
  local entries = redis.call('ZRANGEBYLEX', keys.private, '[' .. wid .. '\0', '(' .. wid .. '\1')
  for _, member in ipairs(entries) do
    redis.call('ZREM', keys.private, member)
    local entry = string.sub(member, #wid + 16)
    local key, value, at = entry_record(keys.queued, entry)
    if key then
      local _, opts = cmsgpack.unpack_one(value, at)
      line_up(keys, entry, opts, true)
    end
  end
end

-- Moves what has become due into the line; returns when the next will be, or nil.
local function line_up_due(keys, now)
  while true do
    local head = redis.call('ZRANGE', keys.delayed, 0, 0, 'WITHSCORES')
    if not head[1] then return nil end
    if tonumber(head[2]) > now then return tonumber(head[2]) end
    redis.call('ZREM', keys.delayed, head[1])
    local key, value, at = entry_record(keys.queued, head[1])
    if key then
      local _, opts = cmsgpack.unpack_one(value, at)
      line_up(keys, head[1], opts)
    end
  end
end

-- The first of the sorted sets' members in a range, taken out.
local function take_member(set, found, skip)
  if not found[1] then return nil end
  redis.call('ZREM', set, found[1])
  return string.sub(found[1], skip)
end

-- The next entry for this worker where all kinds are in use: its own, then by priority, then by age.
local function next_entry(keys, wid)
  local own = redis.call('ZRANGEBYLEX', keys.private, '[' .. wid .. '\0', '(' .. wid .. '\1', 'LIMIT', 0, 1)
  return take_member(keys.private, own, #wid + 16)
    or take_member(keys.ranked, redis.call('ZRANGEBYSCORE', keys.ranked, '-inf', '(0', 'LIMIT', 0, 1), 15)
    or redis.call('LPOP', keys.queue)
    or take_member(keys.ranked, redis.call('ZRANGEBYSCORE', keys.ranked, '(0', '+inf', 'LIMIT', 0, 1), 15)
end

-- The key and record of the next queued task for this worker, or nil.
local function next_queued(keys, wid)
  while true do
    local entry
    if keys.full then entry = next_entry(keys, wid) else entry = redis.call('LPOP', keys.queue) end
    if not entry then return nil end
    local key, value, at, attempt = entry_record(keys.queued, entry)
    if key then return key, value, at, attempt end
  end
end
