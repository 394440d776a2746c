-- include: gate begin
-- Creates tasks already running on this worker. Sent again, it creates nothing twice.
-- KEYS: control index running queued.
-- ARGV: epoch, worker id, token, who (packed worker id and attempt 1), then per task: key, head.
-- Reply: {letter, queued or -1, number created}, or a refusal of the gate.
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local now, created = clock(), 0
for i = 5, #ARGV, 2 do
  created = created + begin(KEYS[2], KEYS[3], ARGV[4], ARGV[i], ARGV[i + 1], now)
end
local letter, queued = riding(me, KEYS[4])
return {letter, queued, created}
