-- include: gate settle claim
-- Settles one task and takes the next from the queue, in one trip.
-- KEYS: control index running finished failed failures tallies events queued queue bell.
-- ARGV: epoch, worker id, token, key, 'f' or 'x', who, payload, packed worker id, claim number, n.
-- Reply: {letter, queued or -1, verdicts, running records}, or UNKNOWN, or a refusal of the gate.
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local now = clock()
local keys = {control = KEYS[1], index = KEYS[2], running = KEYS[3], finished = KEYS[4], failed = KEYS[5],
  failures = KEYS[6], tallies = KEYS[7], queued = KEYS[9], queue = KEYS[10], bell = KEYS[11]}
local stop, verdicts = settle(keys, ARGV[2], 4, 7, now)
if stop then return stop end
announce(KEYS[8], me.watch, now)
local values = claim(keys, ARGV[2], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), me, now)
local letter, queued = riding(me, KEYS[9])
return {letter, queued, verdicts, values}
