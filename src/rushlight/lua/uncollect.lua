-- include: gate
-- Gives back what a collector that is gone had been given and had not handed out, and forgets the collector. What
-- tells its late packets from new ones stays, also for controllers' pushes: of the last hundred that have gone, and of
-- all for a day.
-- KEYS: control collected feeds.  ARGV: epoch, collector, when it was last heard ('': it says goodbye itself), number
--   of its packet ('': it does not), then pairs: key, what `collected` says of it.
-- Reply: {'ok', number given back; -1 where it was heard since}, or EPOCH.
local KEPT, LONG = 100, 86400000000
local control, who = KEYS[1], ARGV[2]
local c = redis.call('HMGET', control, 'epoch', 'k:' .. who, 'n:' .. who)
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local now, sending, last, began = clock(), tonumber(ARGV[4]) or 0, 0, 0
if c[3] then last, began = unpack(cmsgpack.unpack(c[3])) end
local is_stale = c[2] and ARGV[3] ~= '' and cmsgpack.unpack(c[2])[2] ~= tonumber(ARGV[3])
if is_stale or ARGV[3] == '' and sending <= last then return {'ok', -1} end
local back = 0
for i = 5, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then back = back + redis.call('HDEL', KEYS[2], ARGV[i]) end
end
redis.call('HDEL', KEYS[3], who)
if not c[2] and ARGV[3] ~= '' then return {'ok', back} end

redis.call('HDEL', control, 'k:' .. who)
redis.call('HSET', control, 'n:' .. who, cmsgpack.pack({math.max(last, sending), began, now}))
local gone = {}
for _, field in ipairs(redis.call('HKEYS', control)) do
  if string.sub(field, 1, 2) == 'n:' then gone[#gone + 1] = field end
end
if #gone <= KEPT then return {'ok', back} end

local times = {}
for _, field in ipairs(gone) do
  local at = cmsgpack.unpack(redis.call('HGET', control, field))[3]
  if at then times[#times + 1] = {at, string.sub(field, 3)} end
end
table.sort(times, function(a, b) return a[1] > b[1] end)
for i = KEPT + 1, #times do
  local token = times[i][2]
  if now - times[i][1] > LONG then redis.call('HDEL', control, 'n:' .. token, 's:' .. token) end
end
return {'ok', back}
