-- include: gate line settle lose answers
-- Fails tasks at the manager's word: all that are queued, or the named ones, queued or running. Sent again, it
-- gives the first answer.
-- KEYS: control running failed failures tallies workers events, then the line, then orders, answers.
-- ARGV: epoch, call, milliseconds to keep its answer, condition, '1' for all queued, then the keys if not all.
-- Reply: {'ok', keys that failed now}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch', 'drain')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local keys = losing_keys('orders', 'answers')
local before = answered(keys.answers, ARGV[2])
if before then return before end
though_full(KEYS[1])
local now, dropped, gone = clock(), {}, {}
local stamp = cmsgpack.pack(now)
local function drop(key)
  local value = redis.call('HGET', keys.queued, key)
  if not value then return false end
  redis.call('HDEL', keys.queued, key)
  redis.call('HDEL', keys.waiting, key)
  dropped[#dropped + 1] = key
  fail(keys, key, '\192' .. value .. NONE, ARGV[4], stamp)
  return true
end
if ARGV[5] == '1' then
  -- Who waits for another is queued itself: it fails as all do, not because of the other.
  redis.call('DEL', keys.waiting, keys.dependents)
  for _, entry in ipairs(redis.call('LRANGE', keys.queue, 0, -1)) do
    local key = entry_record(keys.queued, entry)
    if key then drop(key) end
  end
  for _, key in ipairs(redis.call('HKEYS', keys.queued)) do drop(key) end
  redis.call('DEL', keys.queue, keys.ranked, keys.private, keys.delayed, keys.bell)
  if c[3] then ring(keys.bell) end
else
  -- Named beside what it waits for, a task is dropped for its own sake.
  for i = 6, #ARGV do redis.call('HDEL', keys.waiting, ARGV[i]) end
  for i = 6, #ARGV do
    local key = ARGV[i]
    local value = not drop(key) and redis.call('HGET', keys.running, key)
    if value then
      redis.call('HDEL', keys.running, key)
      dropped[#dropped + 1] = key
      fail(keys, key, value, ARGV[4], stamp)
      local _, wid = cmsgpack.unpack_one(value, 0)
      redis.call('HINCRBY', keys.tallies, 'x:' .. wid, 1)
      -- Else the worker hears that it is not its own any more, when it is at it for long.
      if not took_ahead(keys, wid, key) then interrupt(keys, wid, gone) end
    end
  end
  if next(gone) then lose(keys, gone, now) end
  if c[3] and redis.call('HLEN', keys.queued) == 0 then ring(keys.bell) end
end
if #dropped > 0 then announce(keys.events, c[2], now) end
return answer(keys.answers, ARGV[2], ARGV[3], {'ok', dropped})
