-- include: gate line settle claim
-- Settles one task and takes the next from the queue, in one trip.
-- KEYS: control index running finished failed failures tallies events, then the line.
-- ARGV: epoch, worker id, token, key, 'f' or 'x', who, payload, packed worker id, claim number, n.
-- Reply: {letter, queued or -1, verdicts, running records, microseconds to the next delayed task or -1}, or
--   UNKNOWN, or LINE, or a refusal of the gate.
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local keys = settling_keys()
if me.line and not keys.full then return {'LINE'} end
local now = clock()
local stop, verdicts = settle(keys, ARGV[2], 4, 7, now)
if stop then return stop end
announce(keys.events, me.watch, now)
local values, due = claim(keys, ARGV[2], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), me, now)
local letter, queued = riding(me, keys.queued)
return {letter, queued, verdicts, values, due}
