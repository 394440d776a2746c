-- Queues tasks where their options say: for all (by priority), for one worker, or until others have
-- finished. Keys are made by the client, so a resent call finds them and creates nothing twice.
-- KEYS: control index running finished tallies events failed failures, then the line, then feeds and the bells of
--   workers that tasks are for.
-- ARGV: epoch, drain ('1': workers leave once the queue is empty), most tasks that may be queued ('': any
--   number), '' or who sends this and the how many-th of theirs it is or 'new' (no task has options, and the keys were
--   made for this very call, so that it has created all or none of them), then the keys, then as many heads; those of
--   'new' ones as two packed arrays, the heads behind their attempt, 1.
-- Reply: {'ok', tasks taken (of the first on)}, or {'UNKNOWN', prerequisites}, or EPOCH.
-- include: gate create
if ARGV[4] == 'new' then
  local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch', 'gone', 'ends')
  local refused = wrong_epoch(c[1], ARGV[1])
  if refused then return refused end
  local names, heads, index = cmsgpack.unpack(ARGV[5]), cmsgpack.unpack(ARGV[6]), KEYS[2]
  local n = #names
  local known = redis.call('HMGET', index, names[1], names[n])
  -- Where tasks were removed, that these are not there does not tell of those between them.
  if not known[1] and not known[2] and not c[3] then
    local now, seq, char = clock(), redis.call('HLEN', index), string.char
    -- Time and number of a task but for the last byte, and the last task of which they are so.
    local stamp, lead, run = cmsgpack.pack(now), nil, seq
    for first = 1, n, AT_ONCE do
      local last, marks, records, at = math.min(first + AT_ONCE - 1, n), {}, {}, 1
      for i = first, last do
        seq = seq + 1
        if seq > run then
          lead = stamp .. string.sub(cmsgpack.pack(seq), 1, -2)
          run = seq < 128 and 127 or seq - seq % 256 + 255
        end
        local key = names[i]
        marks[at], marks[at + 1] = key, ''
        records[at], records[at + 1] = key, heads[i] .. lead .. char(seq % 256)
        at = at + 2
      end
      redis.call('HSET', index, unpack(marks))
      redis.call('HSET', KEYS[9], unpack(records))
      redis.call('RPUSH', KEYS[10], unpack(names, first, last))
    end
    ring(KEYS[14])
    if ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'drain', '1') end
    if c[2] ~= c[4] then announce(KEYS[6], c[2], now) end
    return {'ok', n}
  end
end
-- include: gate line settle create collector
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch', 'line', 'gone', 'ends', 'base')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local keys = settling_keys()
-- A bell's name ends with its worker's.
keys.own_bells = {}
for i = 21, #KEYS do keys.own_bells[string.sub(KEYS[i], #keys.bell + 2)] = KEYS[i] end
local now = clock()
local stamp = cmsgpack.pack(now)
local args = ARGV
if args[4] == 'new' then
  local names, heads = cmsgpack.unpack(ARGV[5]), cmsgpack.unpack(ARGV[6])
  args = {'', '', '', ''}
  for _, name in ipairs(names) do args[#args + 1] = name end
  for _, head in ipairs(heads) do args[#args + 1] = string.sub(head, 2) end
end
local number, n = numbering(stamp), (#args - 4) / 2

-- The options of tasks that have any, by the places of their keys.
local byte, options, unknown = string.byte, {}, {}
for i = 5, n + 4 do
  if byte(args[i + n], 1) ~= 192 then
    local _, opts = cmsgpack.unpack_one(args[i + n], 0)
    options[i] = opts
    for _, other in ipairs(opts.a or {}) do
      if redis.call('HEXISTS', keys.index, other) == 0 then unknown[#unknown + 1] = other end
    end
  end
end
if #unknown > 0 then return {'UNKNOWN', unknown} end

-- Where tasks are removed, finding their keys does not tell that this call was heard before: its number does. Who has
-- sent it waits for what comes of it.
local sender, sending = string.match(ARGV[4], '^(%S+) (%d+)$')
if sender then
  local said = redis.call('HMGET', keys.control, 's:' .. sender, 'k:' .. sender)
  if said[1] and tonumber(said[1]) >= tonumber(sending) then return {'ok', n} end
  redis.call('HSET', keys.control, 's:' .. sender, sending)
  -- One that was held to be gone is there, or was: if nothing more is heard of it, what it waits for keeps nobody.
  if not said[2] then redis.call('HSET', keys.control, 'k:' .. sender, cmsgpack.pack({ALL, now, NOT_HEARD})) end
  local read = redis.call('LLEN', keys.finished) + (c[6] or 0) .. ' ' .. redis.call('LLEN', keys.failures)
  redis.call('HSETNX', KEYS[20], sender, read)
end
if next(options) and c[3] ~= '1' then redis.call('HSET', keys.control, 'line', '1') end

local special = {}
-- Creates the tasks whose keys stand in these places of ARGV.
local function create(places)
  local seq, marks, records, plain = redis.call('HLEN', keys.index) + (c[4] or 0), {}, {}, {}
  local lined = 0
  for j, i in ipairs(places) do
    local key, at = args[i], 2 * j
    local lead, low = number(seq + j)
    marks[at - 1], marks[at] = key, ''
    records[at - 1], records[at] = key, '\1' .. args[i + n] .. lead .. low
    local opts = options[i]
    if opts and opts.q then
      redis.call('ZADD', keys.deadlines, string.format('%.0f', now + opts.q * 1000000), key .. '\0q')
    end
    if opts and (opts.a or opts.w or (opts.p and opts.p ~= 0)) then
      special[#special + 1] = {key, records[at], opts}
    else
      lined = lined + 1
      plain[lined] = key
    end
  end
  redis.call('HSET', keys.index, unpack(marks))
  redis.call('HSET', keys.queued, unpack(records))
  if lined > 0 then redis.call('RPUSH', keys.queue, unpack(plain)) end
  return lined
end

local room = ARGV[3] ~= '' and math.max(0, tonumber(ARGV[3]) - redis.call('HLEN', keys.queued)) or math.huge
local taken, created, lined = 0, 0, 0
for first = 5, n + 4, AT_ONCE do
  local last = math.min(first + AT_ONCE - 1, n + 4)
  local places, seen = newcomers(args, keys.index, first, last, room - created)
  if #places > 0 then lined = lined + create(places) end
  created, taken = created + #places, seen - 4
  if seen < last then break end
end
if lined > 0 then ring(keys.bell) end
for _, task in ipairs(special) do
  local own = task[3].w
  if not held_back(keys, task[1], task[2], task[3], stamp) then
    line_up(keys, task[1], task[3])
  elseif own and keys.own_bells[own] and is_expected(keys, own) then
    -- It learns that there is more than the plain queue to look at.
    ring(keys.own_bells[own])
  end
end
note_dependents(keys)
if ARGV[2] == '1' then
  redis.call('HSET', keys.control, 'drain', '1')
  ring(keys.bell)
end
if created > 0 and c[2] ~= c[5] then announce(keys.events, c[2], now) end
return {'ok', taken}
