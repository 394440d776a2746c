-- include: gate
-- Marks ended tasks as collected: each once, whoever asks. Calls are numbered per collector: a late duplicate
-- gets the stored answer.
-- KEYS: control collected.  ARGV: epoch, collector, number of the call, then the keys.
-- Reply: {'ok', 1 (collected by this call) or 0 (before, by anybody) per key}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'k:' .. ARGV[2])
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local number = tonumber(ARGV[3])
if c[2] then
  local told = cmsgpack.unpack(c[2])
  if told[1] >= number then return {'ok', told[2]} end
end
local verdicts = {}
for i = 4, #ARGV do verdicts[i - 3] = redis.call('SADD', KEYS[2], ARGV[i]) end
redis.call('HSET', KEYS[1], 'k:' .. ARGV[2], cmsgpack.pack({number, verdicts}))
return {'ok', verdicts}
