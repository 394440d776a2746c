-- include: gate line settle lose answers
-- Stops workers. 'd': asks them to leave after the task at hand. 'k': ends their membership now, fails
-- their tasks, and orders their supervisors to kill the processes. Sent again, it gives the first answer and
-- touches no later life of an id.
-- KEYS: control running failed failures tallies workers events, then the line, then orders, answers,
--   then the bell of each worker.
-- ARGV: epoch, call, milliseconds to keep its answer, 'd' or 'k' ('a': 'd' by its own supervisor; 'u': that is
--   to bring it back), condition, order (packed, for 'k'), then the ids in the order of their bells.
-- Reply: {'ok', ids stopped, ids that were not live, keys failed}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
local keys = losing_keys('orders', 'answers')
local before = answered(keys.answers, ARGV[2])
if before then return before end
though_full(KEYS[1])
local letter = ARGV[4]
local now, stopped, idle, gone, failed = clock(), {}, {}, {}, {}
for i = 7, #ARGV do
  local wid, bell = ARGV[i], KEYS[20 + i - 6]
  local status = redis.call('HGET', keys.control, 'w:' .. wid)
  if not is_live(status) and not is_interrupted(status) then
    idle[#idle + 1] = wid
  else
    stopped[#stopped + 1] = wid
    if letter ~= 'k' and is_interrupted(status) then
      -- It has no task at hand any more: it is not to come back, unless its supervisor wants it to.
      if letter == 'd' then
        retire(keys, wid, status, 't')
        redis.call('XADD', keys.orders, 'MAXLEN', '~', 1000, '*', 'o', cmsgpack.pack({op = 'kill', worker_ids = {wid}}))
      end
    elseif letter ~= 'k' then
      if letter == 'd' then redis.call('HDEL', keys.control, 'u:' .. wid) end
      if letter == 'u' and string.sub(status, 1, 1) ~= 'd' then redis.call('HSET', keys.control, 'u:' .. wid, '1') end
      redis.call('HSET', keys.control, 'w:' .. wid, 'd' .. string.sub(status, 2))
    else
      retire(keys, wid, status, 'k')
      gone[wid] = {condition = ARGV[5], requeue = false}
    end
    redis.call('RPUSH', bell, '1')
    redis.call('PEXPIRE', bell, 10000)
  end
end
if next(gone) then
  failed = lose(keys, gone, now)
  redis.call('XADD', keys.orders, 'MAXLEN', '~', 1000, '*', 'o', ARGV[6])
end
if #stopped > 0 then announce(keys.events, c[2], now) end
return answer(keys.answers, ARGV[2], ARGV[3], {'ok', stopped, idle, failed})
