-- include: gate budget
-- Makes workers members of the network, `starting` or `running`, and gives the network its epoch if it
-- has none. The same token again moves a worker on from starting to running; another token takes over an
-- id only when its last holder is gone.
-- KEYS: control workers ends leases events tallies budgets.
-- ARGV: '1' if the workers have been here before, proposed epoch, lease in microseconds, then per worker: id,
--   token, letter, card.
-- Reply: {'ok', epoch}, or {'FORMAT', epoch} (one of another format), or {'TAKEN', ids}, or {'GONE', ids} (a start that was stopped or given up
--   meanwhile, or workers that have been here and of which the network, reset since, knows nothing).
local epoch = redis.call('HGET', KEYS[1], 'epoch')
-- An epoch begins with the format: of another one nothing else is known, so nothing may be written.
if epoch and string.match(epoch, '^%d+%.') ~= string.match(ARGV[2], '^%d+%.') then return {'FORMAT', epoch} end
local now, taken, gone = clock(), {}, {}
for i = 4, #ARGV, 4 do
  local status = redis.call('HGET', KEYS[1], 'w:' .. ARGV[i])
  if status then
    local letter, mine = string.sub(status, 1, 1), string.sub(status, 2) == ARGV[i + 1]
    local live = letter == 's' or letter == 'r' or letter == 'd'
    if live and not mine then taken[#taken + 1] = ARGV[i] end
    if mine and not live then gone[#gone + 1] = ARGV[i] end
  elseif ARGV[1] == '1' then
    gone[#gone + 1] = ARGV[i]
  end
end
if #taken > 0 then return {'TAKEN', taken} end
if #gone > 0 then return {'GONE', gone} end
local first = redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2]) == 1
redis.call('HSETNX', KEYS[1], 'wide', WIDE)
-- Somebody may have opened the network and not confirmed it yet.
if redis.call('PERSIST', KEYS[1]) == 1 or first then begun(KEYS[5]) end
local books = {control = KEYS[1], tallies = KEYS[6], budgets = KEYS[7]}
local due = string.format('%.0f', now + tonumber(ARGV[3]))
for i = 4, #ARGV, 4 do
  local id, token, letter = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local status = redis.call('HGET', KEYS[1], 'w:' .. id)
  if status and string.sub(status, 2) ~= token then close_life(books, id) end
  -- A terminate that came while the worker was starting stays in force.
  if not (status == 'd' .. token) then redis.call('HSET', KEYS[1], 'w:' .. id, letter .. token) end
  if not status or string.sub(status, 2) ~= token then
    redis.call('HSET', KEYS[2], id, cmsgpack.pack(now) .. ARGV[i + 3])
    redis.call('HDEL', KEYS[3], id)
    redis.call('HDEL', KEYS[1], 'r:' .. id, 'u:' .. id)
  end
  if letter == 'r' then redis.call('HSET', KEYS[1], 'r:' .. id, '1') end
  redis.call('ZADD', KEYS[4], due, id)
end
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
announce(KEYS[5], c[2], now)
return {'ok', c[1]}
