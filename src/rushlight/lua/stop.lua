-- include: gate line settle lose answers
-- Stops workers. 'd': asks them to leave after the task at hand. 'k': ends their membership now, fails
-- their tasks, and orders their supervisors to kill the processes. Sent again, it gives the first answer and
-- touches no later life of an id, also where the network was reset between.
-- KEYS: control running failed failures tallies workers events, then the line, then orders, answers,
--   then the bell of each worker.
-- ARGV: epoch, call, milliseconds to keep its answer, 'd' or 'k' ('a': 'd' by its own supervisor; 'u': that is
--   to bring it back), condition, then the ids in the order of their bells, then as many
--   tokens, of the lives that are meant; '' stands for any.
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
local n, named = #KEYS - 20, {}
for i = 6, 5 + n do
  local wid, bell, life = ARGV[i], KEYS[20 + i - 5], ARGV[i + n]
  local status = redis.call('HGET', keys.control, 'w:' .. wid)
  local meant = life == '' or status and string.sub(status, 2) == life
  if meant then named[#named + 1] = wid end
  if not meant or not is_live(status) and not is_interrupted(status) then
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
  redis.call('XADD', keys.orders, 'MAXLEN', '~', 1000, '*', 'o', cmsgpack.pack({op = 'kill', worker_ids = named}))
end
if #stopped > 0 then announce(keys.events, c[2], now) end
return answer(keys.answers, ARGV[2], ARGV[3], {'ok', stopped, idle, failed})
