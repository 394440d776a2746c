-- include: gate line settle lose answers
-- What has run out of time, by the server's clock: workers whose lease has (they are lost), tasks that ran for too
-- long (their attempt failed, and a worker under a supervisor ends with it) and tasks that nobody took in time
-- (they have failed). Anybody may call it; of two callers one finds them, the other none. Sent again, it gives the
-- first answer.
-- KEYS: control running failed failures tallies workers events, then the line, then orders, answers.
-- ARGV: epoch, call, milliseconds to keep its answer, condition of the tasks of lost workers.
-- Reply: {'ok', ids lost now, keys failed, keys queued again}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local keys = losing_keys('orders', 'answers')
local before = answered(keys.answers, ARGV[2])
if before then return before end
local now, ids, gone, stopped, late = clock(), {}, {}, {}, 0
local stamp, until_now = cmsgpack.pack(now), string.format('%.0f', now)
for _, wid in ipairs(redis.call('ZRANGEBYSCORE', keys.leases, '-inf', until_now)) do
  local status = redis.call('HGET', keys.control, 'w:' .. wid) or '?'
  if retire(keys, wid, status, 'l') then
    ids[#ids + 1] = wid
    local said = card(keys, wid)
    gone[wid] = {condition = ARGV[4], requeue = said.on_lost == 'requeue', crashes = said.crashes}
  end
end

-- A task that was to be taken by now: 1 where it was not.
local function waited_out(key)
  local value = redis.call('HGET', keys.queued, key)
  if not value then return 0 end
  local at_opts, attempt = cmsgpack.unpack_one(value, 0)
  if attempt > 1 then return 0 end
  local _, opts = cmsgpack.unpack_one(value, at_opts)
  redis.call('HDEL', keys.queued, key)
  redis.call('HDEL', keys.waiting, key)
  local said = cmsgpack.pack({message = 'Task was not started within ' .. tostring(opts.q) .. ' seconds',
    type = 'TaskTimeout', timeout = opts.q})
  fail(keys, key, '\192' .. value .. NONE, said, stamp)
  if redis.call('HLEN', keys.queued) == 0 then ring(keys.bell) end
  return 1
end

for _, entry in ipairs(redis.call('ZRANGEBYSCORE', keys.deadlines, '-inf', until_now)) do
  redis.call('ZREM', keys.deadlines, entry)
  local cut = string.find(entry, '\0', 1, true)
  local key = cut and string.sub(entry, 1, cut - 1) or entry
  local waiting = cut and string.sub(entry, cut + 1) == 'q'
  if waiting then late = late + waited_out(key) end
  local value = not waiting and redis.call('HGET', keys.running, key)
  local at_attempt, wid = 0, nil
  if value then at_attempt, wid = cmsgpack.unpack_one(value, 0) end
  if value and not gone[wid] then
    local at_opts, attempt = cmsgpack.unpack_one(value, at_attempt)
    local _, opts = cmsgpack.unpack_one(value, at_opts)
    if attempt == (cut and tonumber(string.sub(entry, cut + 1)) or 1) then
      late = late + 1
      local said = cmsgpack.pack({message = 'Task timed out after ' .. tostring(opts.t) .. ' seconds',
        type = 'TaskTimeout', timeout = opts.t})
      redis.call('HDEL', keys.running, key)
      redis.call('HINCRBY', keys.tallies, 'x:' .. wid, 1)
      lapse(keys, key, value, said, stamp, now)
      interrupt(keys, wid, stopped)
    end
  end
end
if #ids == 0 and late == 0 then return {'ok', {}, {}, {}} end
for wid, fate in pairs(stopped) do gone[wid] = fate end
local failed, again = lose(keys, gone, now)
announce(keys.events, c[2], now)
return answer(keys.answers, ARGV[2], ARGV[3], {'ok', ids, failed, again})
