-- include: gate claim
-- Takes up to n queued tasks for this worker and marks them running.
-- KEYS: control queued queue bell running.
-- ARGV: epoch, worker id, token, packed worker id, claim number, n, '1' if a bell woke the caller.
-- Reply: {letter, queued or -1, running records}, or a refusal of the gate.
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local keys = {control = KEYS[1], queued = KEYS[2], queue = KEYS[3], bell = KEYS[4], running = KEYS[5]}
local values = claim(keys, ARGV[2], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), me, clock())
-- The token this caller took wakes the next worker, if there is work left or all must hear of the drain.
if ARGV[7] == '1' and (me.drain or redis.call('LLEN', KEYS[3]) > 0) then ring(KEYS[4]) end
local letter, queued = riding(me, KEYS[2])
return {letter, queued, values}
