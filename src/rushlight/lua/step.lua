-- Settles one task and creates the next, running, in one trip.
-- KEYS: control index running finished tallies events, failed failures unless it is a result, then the line.
-- ARGV: epoch, worker id, token, who of the new task, 'f' or 'x', who, key, payload, key of the new task, its head.
-- Reply: number created in the plain case (lib/plain); else {letter, queued or -1, verdicts, number created}, or
--   UNKNOWN, or LINE, or a refusal of the gate.
-- include: gate begin plain
local c = plain_worker()
local value = c and plain_record(5)
if value then
  local now = clock()
  finish_plain(5, value, cmsgpack.pack(now))
  announce(KEYS[6], c[5], now)
  return begin(KEYS[2], KEYS[3], ARGV[4], ARGV[9], ARGV[10], now, c[4] and redis.call('HGET', KEYS[1], 'gone'))
end
-- include: gate line settle
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local keys = settling_keys(#KEYS == 7)
if me.line and not keys.full then return {'LINE'} end
local now = clock()
local stop, verdicts = settle(keys, ARGV[2], 5, 8, now)
if stop then return stop end
announce(keys.events, me.watch, now)
local gone = me.removed and redis.call('HGET', KEYS[1], 'gone')
local created = begin(keys.index, keys.running, ARGV[4], ARGV[9], ARGV[10], now, gone)
local letter, queued = riding(me, keys.queued)
return {letter, queued, verdicts, created}
