-- include: gate line begin settle
-- Settles one task and creates the next, running, in one trip.
-- KEYS: control index running finished failed failures tallies events, then the line.
-- ARGV: epoch, worker id, token, key, 'f' or 'x', who, payload, who of the new task, its key, its head.
-- Reply: {letter, queued or -1, verdicts, number created}, or UNKNOWN, or LINE, or a refusal of the gate.
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local keys = settling_keys()
if me.line and not keys.full then return {'LINE'} end
local now = clock()
local stop, verdicts = settle(keys, ARGV[2], 4, 7, now)
if stop then return stop end
announce(keys.events, me.watch, now)
local created = begin(keys.index, keys.running, ARGV[8], ARGV[9], ARGV[10], now)
local letter, queued = riding(me, keys.queued)
return {letter, queued, verdicts, created}
