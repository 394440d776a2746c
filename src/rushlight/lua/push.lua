-- include: gate line settle
-- Queues tasks where their options say: for all (by priority), for one worker, or until others have
-- finished. Keys are made by the client, so a resent call finds them and creates nothing twice.
-- KEYS: control index running finished failed failures tallies events, then the line, then the bells of workers
--   that tasks are for.
-- ARGV: epoch, drain ('1': workers leave once the queue is empty), most tasks that may be queued ('': any
--   number), then per task: key, head.
-- Reply: {'ok', tasks taken (of the first on)}, or {'UNKNOWN', prerequisites}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch', 'line')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local keys = settling_keys()
-- A bell's name ends with its worker's.
keys.own_bells = {}
for i = 20, #KEYS do keys.own_bells[string.sub(KEYS[i], #keys.bell + 2)] = KEYS[i] end
local now, unknown = clock(), {}
local stamp = cmsgpack.pack(now)

local function options(head)
  if string.byte(head, 1) == 192 then return nil end
  local _, opts = cmsgpack.unpack_one(head, 0)
  return opts
end

for i = 4, #ARGV, 2 do
  local opts = options(ARGV[i + 1])
  for _, other in ipairs(opts and opts.a or {}) do
    if redis.call('HEXISTS', keys.index, other) == 0 then unknown[#unknown + 1] = other end
  end
end
if #unknown > 0 then return {'UNKNOWN', unknown} end

local room = ARGV[3] ~= '' and tonumber(ARGV[3]) - redis.call('HLEN', keys.queued) or math.huge
local taken, plain, records, special = 0, {}, {}, {}
for i = 4, #ARGV, 2 do
  local key, head = ARGV[i], ARGV[i + 1]
  if redis.call('HEXISTS', keys.index, key) == 0 then
    if room <= 0 then break end
    room = room - 1
    redis.call('HSET', keys.index, key, '')
    local value = '\1' .. head .. stamp .. cmsgpack.pack(redis.call('HLEN', keys.index))
    records[#records + 1] = key
    records[#records + 1] = value
    local opts = options(head)
    if opts and (opts.a or opts.w or (opts.p and opts.p ~= 0)) then
      special[#special + 1] = {key, value, opts}
    else
      plain[#plain + 1] = key
    end
    if opts and not c[3] then c[3] = redis.call('HSET', keys.control, 'line', '1') end
  end
  taken = taken + 1
end
if #records > 0 then redis.call('HSET', keys.queued, unpack(records)) end
if #plain > 0 then
  redis.call('RPUSH', keys.queue, unpack(plain))
  ring(keys.bell)
end
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
if #records > 0 then announce(keys.events, c[2], now) end
return {'ok', taken}
