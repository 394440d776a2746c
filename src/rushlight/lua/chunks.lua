-- include: gate
-- The end of an upload in chunks: the manifest, which makes them an object, or their removal, where the server
-- had no room for all of them. An object that is whole is never taken apart, and none is made of parts that
-- somebody else's removal has left.
-- KEYS: control, the hash.  ARGV: epoch, digest, number of chunks, manifest ('' removes the chunks).
-- Reply: {'ok', 1, or 0 where chunks are missing}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
local digest, n, manifest = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local whole = redis.call('HEXISTS', KEYS[2], digest) == 1
if manifest == '' then
  for i = 0, whole and -1 or n - 1 do redis.call('HDEL', KEYS[2], digest .. ':' .. i) end
  return {'ok', 1}
end
for i = 0, whole and -1 or n - 1 do
  if redis.call('HEXISTS', KEYS[2], digest .. ':' .. i) == 0 then return {'ok', 0} end
end
redis.call('HSETNX', KEYS[2], digest, manifest)
return {'ok', 1}
