-- include: gate
-- Renews the leases of workers that are still members; says which are not, and whether others' ran out.
-- A lease that ran out but was not reaped is renewed: the worker was only slow.
-- KEYS: control leases deadlines usage.
-- ARGV: epoch, lease in microseconds, then per worker: id, token, sample of its process (packed) or ''.
-- Reply: {'ok', letters (one per worker, '?' for none of ours), leases and deadlines run out},
--   or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
though_full(KEYS[1])
local now, letters = clock(), {}
local due = string.format('%.0f', now + tonumber(ARGV[2]))
local stamp, samples = cmsgpack.pack(now), {}
for i = 3, #ARGV, 3 do
  local status = redis.call('HGET', KEYS[1], 'w:' .. ARGV[i])
  local letter = '?'
  if status and string.sub(status, 2) == ARGV[i + 1] then letter = string.sub(status, 1, 1) end
  if letter == 's' or letter == 'r' or letter == 'd' then redis.call('ZADD', KEYS[2], due, ARGV[i]) end
  if letter ~= '?' and ARGV[i + 2] ~= '' then
    samples[#samples + 1] = ARGV[i]
    samples[#samples + 1] = stamp .. ARGV[i + 2]
  end
  letters[#letters + 1] = letter
end
-- Leases come first: a full server takes no samples.
if #samples > 0 then redis.pcall('HSET', KEYS[4], unpack(samples)) end
local until_now = string.format('%.0f', now)
local overdue = redis.call('ZCOUNT', KEYS[2], '-inf', until_now) + redis.call('ZCOUNT', KEYS[3], '-inf', until_now)
return {'ok', table.concat(letters), overdue}
