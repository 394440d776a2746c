-- include: gate begin settle
-- Settles one task and creates the next, running, in one trip.
-- KEYS: control index running finished failed failures tallies events queued.
-- ARGV: epoch, worker id, token, key, 'f' or 'x', who, payload, who of the new task, its key, its head.
-- Reply: {letter, queued or -1, verdicts, number created}, or UNKNOWN, or a refusal of the gate.
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local now = clock()
local keys = {index = KEYS[2], running = KEYS[3], finished = KEYS[4], failed = KEYS[5], failures = KEYS[6],
  tallies = KEYS[7]}
local stop, verdicts = settle(keys, ARGV[2], 4, 7, now)
if stop then return stop end
announce(KEYS[8], me.watch, now)
local created = begin(KEYS[2], KEYS[3], ARGV[8], ARGV[9], ARGV[10], now)
local letter, queued = riding(me, KEYS[9])
return {letter, queued, verdicts, created}
