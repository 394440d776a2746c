-- Finishes and fails running tasks, first writer wins. Sent again by the same attempt, it says the same.
-- A worker that is no longer a member may still ask: its tasks have been decided, so it hears 0.
-- KEYS: control index running finished tallies events, failed failures unless there are only results, then the line.
-- ARGV: epoch, worker id, token, then per task: 'f' or 'x', who, key, payload.
-- Reply: 1 in the plain case (lib/plain); else {letter, queued or -1, verdicts}, or UNKNOWN with the keys, or LINE,
--   or EPOCH.
-- include: gate plain
if #ARGV == 7 then
  local c = plain_worker()
  local value = c and plain_record(4)
  if value then
    local now = clock()
    finish_plain(4, value, cmsgpack.pack(now))
    announce(KEYS[6], c[5], now)
    return 1
  end
end
-- include: gate line settle
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused and refused[1] == 'EPOCH' then return refused end
local keys = settling_keys(#KEYS == 7)
if not keys.full and (not me or me.line) then return {'LINE'} end
local now = clock()
local stop, verdicts = settle(keys, ARGV[2], 4, #ARGV, now, not me)
if stop then return stop end
if not me then return {refused[2], -1, verdicts} end
announce(keys.events, me.watch, now)
local letter, queued = riding(me, keys.queued)
return {letter, queued, verdicts}
