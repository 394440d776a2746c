-- include: gate
-- Queues tasks. Keys are made by the client, so a resent call finds them and creates nothing twice.
-- KEYS: control index queued queue bell.
-- ARGV: epoch, drain ('1': workers leave once the queue is empty), then per task: key, head.
-- Reply: {'ok', number created}, or EPOCH.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local refused = wrong_epoch(epoch, ARGV[1])
if refused then return refused end
local stamp, created = cmsgpack.pack(clock()), 0
local entries, records = {}, {}
for i = 3, #ARGV, 2 do
  local key = ARGV[i]
  if redis.call('HSETNX', KEYS[2], key, '') == 1 then
    created = created + 1
    entries[created] = key
    records[2 * created - 1] = key
    records[2 * created] = '\1' .. ARGV[i + 1] .. stamp .. cmsgpack.pack(redis.call('HLEN', KEYS[2]))
  end
end
if created > 0 then
  redis.call('HSET', KEYS[3], unpack(records))
  redis.call('RPUSH', KEYS[4], unpack(entries))
  ring(KEYS[5])
end
if ARGV[2] == '1' then
  redis.call('HSET', KEYS[1], 'drain', '1')
  ring(KEYS[5])
end
return {'ok', created}
