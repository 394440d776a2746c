-- include: gate
-- Whose turn it is to change the number of workers: one controller's at a time, from its look to what it says about
-- it. For one that dies meanwhile the others wait no longer than it had asked for.
-- KEYS: control.  ARGV: epoch, what names this turn, microseconds it may take ('0': it is over).
-- Reply: {'ok', 1 where it has the turn, else 0}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'lead')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local now = clock()
if c[2] then
  local held = cmsgpack.unpack(c[2])
  -- One that has more time left than it asked for is of before the clock was turned back.
  local left = held[2] - now
  if held[1] ~= ARGV[2] and left > 0 and left <= held[3] then return {'ok', 0} end
end
if ARGV[3] == '0' then
  redis.call('HDEL', KEYS[1], 'lead')
else
  redis.call('HSET', KEYS[1], 'lead', cmsgpack.pack({ARGV[2], now + tonumber(ARGV[3]), tonumber(ARGV[3])}))
end
return {'ok', 1}
