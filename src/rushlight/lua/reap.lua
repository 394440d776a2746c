-- include: gate settle claim lose
-- Declares every worker lost whose lease has run out by the server's clock. Anybody may call it; of two
-- callers one finds the workers, the other none.
-- KEYS: control queued queue bell running failed failures tallies workers leases events.
-- ARGV: epoch, condition of the tasks that fail.
-- Reply: {'ok', ids lost now, keys failed, keys queued again}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local keys = {control = KEYS[1], queued = KEYS[2], queue = KEYS[3], bell = KEYS[4], running = KEYS[5],
  failed = KEYS[6], failures = KEYS[7], tallies = KEYS[8], workers = KEYS[9], leases = KEYS[10]}
local now, ids, gone = clock(), {}, {}
for _, wid in ipairs(redis.call('ZRANGEBYSCORE', keys.leases, '-inf', string.format('%.0f', now))) do
  local status = redis.call('HGET', keys.control, 'w:' .. wid) or '?'
  if retire(keys, wid, status, 'l') then
    ids[#ids + 1] = wid
    gone[wid] = {condition = ARGV[2], requeue = wants_requeue(keys, wid)}
  end
end
if #ids == 0 then return {'ok', {}, {}, {}} end
local failed, again = lose(keys, gone, now)
announce(KEYS[11], c[2], now)
return {'ok', ids, failed, again}
