-- Takes up to n queued tasks for this worker and marks them running. With n = 0 it only tells how the worker
-- stands, and leaves no number.
-- KEYS: control running events, then the line.
-- ARGV: epoch, worker id, token, packed worker id, n, '1' if a bell woke the caller, claim number.
-- Reply: the running record in the plain case (lib/plain), where one was asked for and is there, and, if a bell woke the
--   caller, is the last; else {letter, queued or -1, running records, microseconds to the next delayed task or -1}, or
--   LINE, or a refusal of the gate.
-- include: gate plain
if ARGV[5] == '1' then
  local c = plain_worker('c:' .. ARGV[2], 'ends')
  if c then
    local key, value = next_plain(KEYS[5], KEYS[4], c[6], ARGV[7])
    if key then
      local now = clock()
      if c[5] ~= c[7] then announce(KEYS[3], c[5], now) end
      local record = take_plain(KEYS[2], KEYS[4], ARGV[4], key, value, ARGV[7], cmsgpack.pack(now))
      if ARGV[6] == '0' or redis.call('LLEN', KEYS[5]) == 0 then return record end
      ring(KEYS[6])
      return {'r', -1, {record}, -1}
    end
  end
end
-- include: gate line claim
local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local keys = line_keys({control = KEYS[1], running = KEYS[2], events = KEYS[3]}, 4)
if me.line and not keys.full then return {'LINE'} end
local n, values, due = tonumber(ARGV[5]), {}, -1
if n > 0 then values, due = claim(keys, ARGV[2], ARGV[4], ARGV[7], n, me, clock()) end
-- The token this caller took wakes the next worker, if there is work left or all must hear that none is.
if ARGV[6] == '1' then
  local more = (me.drain and redis.call('HLEN', keys.queued) == 0) or redis.call('LLEN', keys.queue) > 0
  if more or (keys.full and redis.call('ZCARD', keys.ranked) > 0) then ring(keys.bell) end
end
local letter, queued = riding(me, keys.queued)
return {letter, queued, values, due}
