-- Settles one task and takes the next from the queue, in one trip.
-- KEYS: control index running finished tallies events, failed failures unless it is a result, then the line.
-- ARGV: epoch, worker id, token, packed worker id, n, 'f' or 'x', who, key, payload, claim number.
-- Reply: in the plain case (lib/plain), where one was asked for, its running record, or 0 where none is there; else
--   {letter, queued or -1, verdicts, running records, microseconds to the next delayed task or -1}, or UNKNOWN, or
--   LINE, or a refusal of the gate.
-- include: gate plain
if ARGV[5] == '1' then
  local c = plain_worker('c:' .. ARGV[2])
  local done = c and plain_record(6)
  if done then
    local at = #KEYS == 9 and 7 or 9
    local key, value = next_plain(KEYS[at + 1], KEYS[at], c[6], ARGV[10])
    if key ~= nil then
      local now = clock()
      local stamp = cmsgpack.pack(now)
      finish_plain(6, done, stamp)
      announce(KEYS[6], c[5], now)
      if key then return take_plain(KEYS[3], KEYS[at], ARGV[4], key, value, ARGV[10], stamp) end
      redis.call('DEL', KEYS[at + 2])
      redis.call('HSET', KEYS[1], 'c:' .. ARGV[2], ARGV[10])
      return 0
    end
  end
end
-- include: gate line settle claim
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local keys = settling_keys(#KEYS == 9)
if me.line and not keys.full then return {'LINE'} end
local now = clock()
local stop, verdicts = settle(keys, ARGV[2], 6, 9, now)
if stop then return stop end
announce(keys.events, me.watch, now)
local values, due = claim(keys, ARGV[2], ARGV[4], ARGV[10], tonumber(ARGV[5]), me, now)
local letter, queued = riding(me, keys.queued)
return {letter, queued, verdicts, values, due}
