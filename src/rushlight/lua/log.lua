-- include: gate sendings
-- Appends log entries to the stream, which is capped in such a way that a worker that floods it pushes out
-- its own lines and nobody else's: once the stream is full, whoever holds more than a fair share pays for it.
-- Sent again, or later once more, it writes nothing.
-- KEYS: control logs shares answers.
-- ARGV: epoch, sender, number of the sending, milliseconds to remember it, weight to keep, share left to any
--   worker, worker id, then the entries (packed).
-- Reply: {'ok', number of entries}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
local logs, shares, answers = KEYS[2], KEYS[3], KEYS[4]
local most, wid, me = tonumber(ARGV[5]), ARGV[7], 'w:' .. ARGV[7]
local said = unheard(redis.call('HGET', answers, 'log:' .. wid), ARGV[2], ARGV[3])
if not said then return {'ok', #ARGV - 7} end
redis.call('HSET', answers, 'log:' .. wid, said)
if redis.call('PTTL', answers) < tonumber(ARGV[4]) then redis.call('PEXPIRE', answers, ARGV[4]) end

-- A line counts one, and one more for every KiB.
local function weight(entry) return 1 + math.floor(#entry / 1024) end

-- A worker's share is what its lines weigh, and the id up to which it has none any more.
local function share(field)
  local told = redis.call('HGET', shares, field)
  local held, seen = string.match(told or '0 0-0', '^(%d+) (.+)$')
  return tonumber(held), seen
end

local function set_share(field, held, seen)
  if held > 0 then redis.call('HSET', shares, field, string.format('%d %s', held, seen))
  else redis.call('HDEL', shares, field) end
end

local total = tonumber(redis.call('HGET', shares, 'total') or 0)
local mine, seen = share(me)
for i = 8, #ARGV do
  redis.call('XADD', logs, '*', 'w', wid, 'e', ARGV[i])
  mine, total = mine + weight(ARGV[i]), total + weight(ARGV[i])
end
set_share(me, mine, seen)
redis.call('HSET', shares, 'total', total)

-- Removes a worker's oldest lines until the stream is light enough, or the worker is down to `fair`.
local function shed(field, fair)
  local held, from = share(field)
  local wid = string.sub(field, 3)
  while total > most and held > fair do
    local page = redis.call('XRANGE', logs, '(' .. from, '+', 'COUNT', 100)
    -- Another version of the library has removed them.
    if #page == 0 then held, total = 0, total - held end
    for _, line in ipairs(page) do
      if total <= most or held <= fair then break end
      from = line[1]
      if line[2][2] == wid then
        redis.call('XDEL', logs, from)
        held, total = held - weight(line[2][4]), total - weight(line[2][4])
      end
    end
  end
  set_share(field, held, from)
end

-- Removes the oldest lines, whosever they are.
local function shed_oldest()
  while total > most do
    local page = redis.call('XRANGE', logs, '-', '+', 'COUNT', 100)
    if #page == 0 then total = 0 end
    for _, line in ipairs(page) do
      if total <= most then break end
      local field = 'w:' .. line[2][2]
      local held, from = share(field)
      redis.call('XDEL', logs, line[1])
      set_share(field, held - weight(line[2][4]), from)
      total = total - weight(line[2][4])
    end
  end
end

local function largest()
  local field, most_held, all = nil, 0, redis.call('HGETALL', shares)
  for i = 1, #all, 2 do
    local held = tonumber(string.match(all[i + 1], '^(%d+) ') or 0)
    if held > most_held then field, most_held = all[i], held end
  end
  return field, most_held
end

if total > most then
  local fair = math.max(tonumber(ARGV[6]), math.floor(most / (redis.call('HLEN', shares) - 1)))
  shed(me, fair)
  -- Somebody with a small share may go beyond for a while: looking for another to pay takes time.
  while total > most * 1.1 do
    local field, held = largest()
    if held <= fair then break end
    shed(field, fair)
  end
  if total > most * 1.1 then shed_oldest() end
  redis.call('HSET', shares, 'total', total)
end
return {'ok', #ARGV - 7}
