-- Puts back what a worker took and has not begun, as the task it is at takes long; settles what it is done with.
-- Should that task have been taken from it meanwhile, the worker's process is replaced now: who took it could not
-- know which of several the worker was at. It hears that it is gone.
-- KEYS: control running failed failures tallies workers events, then the line, then orders index finished.
-- ARGV: epoch, worker id, token, claim number of the tasks, who and key of the one it is at (both '' for none), how
--   many go back, their keys, then per task to be settled: 'f' or 'x', who, key, payload.
-- Reply: {letter, queued or -1, verdicts}, or UNKNOWN, or a refusal of the gate.
-- include: gate line settle lose
local wid = ARGV[2]
local refused, me = worker_gate(KEYS[1], ARGV[1], wid, ARGV[3])
if refused then return refused end
local keys = losing_keys('orders', 'index', 'finished')
local now, last = clock(), 7 + tonumber(ARGV[7])
local stop, verdicts = settle(keys, wid, last + 1, #ARGV, now)
if stop then return stop end
-- A call that comes late must not put back what the worker has taken again since.
if me.claim and string.sub(me.claim, 1, 14) == ARGV[4] then
  for i = last, 8, -1 do give_back(keys, wid, ARGV[i]) end
  redis.call('HSET', keys.control, 'c:' .. wid, ARGV[4] .. ARGV[6])
  if ARGV[6] ~= '' then
    local value, gone = redis.call('HGET', keys.running, ARGV[6]), {}
    if not value or string.sub(value, 1, #ARGV[5]) ~= ARGV[5] then interrupt(keys, wid, gone) end
    if next(gone) then
      lose(keys, gone, now)
      announce(keys.events, me.watch, now)
      return {'GONE', string.sub(redis.call('HGET', keys.control, 'w:' .. wid), 1, 1)}
    end
  end
end
announce(keys.events, me.watch, now)
local letter, queued = riding(me, keys.queued)
return {letter, queued, verdicts}
