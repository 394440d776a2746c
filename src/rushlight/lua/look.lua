-- Tasks by key: the state of each, or all that is known of each.
-- KEYS: control index queued running finished failed lapses.
-- ARGV: '1' for records, then the keys.
-- Reply: {epoch or '', a letter for each key: ' ' | 'q' | 'r' | 'f' | 'x'}; with records {epoch or '', per key: {''} or
--   {letter, record, worker, attempt and condition of the last attempt or ''}}.
local args = ARGV
local holders = {q = KEYS[3], r = KEYS[4], x = KEYS[6]}

if args[1] == '1' then
  local c = redis.call('HMGET', KEYS[1], 'epoch', 'base')
  local reply, base = {c[1] or ''}, c[2] or 0
  for i = 2, #args do
    local key = args[i]
    local at = redis.call('HGET', KEYS[2], key)
    local letter, record = '', false
    if at and at ~= '' then
      letter, record = 'f', redis.call('LINDEX', KEYS[5], at - base)
    elseif at then
      for name, holder in pairs(holders) do
        local found = redis.call('HGET', holder, key)
        if found then letter, record = name, found end
      end
    end
    reply[i] = record and {letter, record, redis.call('HGET', KEYS[7], key) or ''} or {letter}
  end
  return reply
end

-- A task that has not finished is in one of three places: what is in none of the smaller ones is in the largest. One
-- that is small is read as a whole, which is less than asking for each key.
local places = {}
for letter, holder in pairs(holders) do
  places[#places + 1] = {letter = letter, holder = holder, n = redis.call('HLEN', holder)}
end
table.sort(places, function(a, b) return a.n < b.n end)
local function unfinished(key)
  for i = 1, 2 do
    local place = places[i]
    if place.n > 0 and place.n < #args and not place.held then
      place.held = {}
      for _, other in ipairs(redis.call('HKEYS', place.holder)) do place.held[other] = true end
    end
    if place.held and place.held[key] then return place.letter end
    if place.n >= #args and redis.call('HEXISTS', place.holder, key) == 1 then return place.letter end
  end
  return places[3].letter
end

local letters = {}
for first = 2, #args, 1000 do
  local last = math.min(first + 999, #args)
  for i, at in ipairs(redis.call('HMGET', KEYS[2], unpack(args, first, last))) do
    letters[#letters + 1] = not at and ' ' or at ~= '' and 'f' or unfinished(args[first + i - 1])
  end
end
return {redis.call('HGET', KEYS[1], 'epoch') or '', table.concat(letters)}
