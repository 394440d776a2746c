-- Settles tasks and takes the next ones, in one trip: what a worker with short tasks does over and over. It takes
-- no more than its share of the queue, begins with the first, and tells later when it began with the others.
-- KEYS: control index running finished tallies events failed failures, then the line (queued queue bell leases
--   where no more than the plain queue is in use).
-- ARGV: epoch, worker id, token, packed worker id, most tasks to take, claim number, who ('' or the worker's first
--   attempt: then all are finished by it), then per task to be settled: 'f' or 'x', who, key, payload; or, with who, the
--   keys, then the payloads.
-- Reply: {letter, queued or -1, verdicts or how many this worker decided, which is all, running records, microseconds
--   to the next delayed task or -1}, or UNKNOWN, or LINE, or a refusal of the gate.
-- include: gate line settle claim
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local keys = settling_keys()
keys.leases = keys.leases or KEYS[12]
if me.line and not keys.full then return {'LINE'} end
local now = clock()
local stop, verdicts
if ARGV[7] == '' then
  stop, verdicts = settle(keys, ARGV[2], 8, #ARGV, now)
else
  stop, verdicts = settle_firsts(keys, ARGV[2], ARGV[7], 8, (#ARGV - 7) / 2, now)
end
if stop then return stop end
if #ARGV > 7 then announce(keys.events, me.watch, now) end
local n = tonumber(ARGV[5])
if n > 1 then
  local workers = math.max(1, redis.call('ZCARD', keys.leases))
  n = math.max(1, math.min(n, math.ceil(redis.call('HLEN', keys.queued) / workers)))
end
local values, due = claim(keys, ARGV[2], ARGV[4], ARGV[6], n, me, now, true)
local letter, queued = riding(me, keys.queued)
return {letter, queued, verdicts, values, due}
