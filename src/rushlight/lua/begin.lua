-- Creates tasks already running on this worker. Sent again, it creates nothing twice.
-- KEYS: control index running queued.
-- ARGV: epoch, worker id, token, who (packed worker id and attempt 1), then the keys, then as many heads.
-- Reply: number created, to a running worker of a network that does not drain; else {letter, queued or -1,
--   number created}, or a refusal of the gate.
-- include: gate begin
local c = redis.call('HMGET', KEYS[1], 'epoch', 'w:' .. ARGV[2], 'drain', 'gone')
local plain, letter, queued = c[1] == ARGV[1] and c[2] == 'r' .. ARGV[3] and not c[3], nil, nil
local now, n, created = clock(), (#ARGV - 4) / 2, 0
if not plain then
-- include: gate
  local refused, me = worker_gate(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
  if refused then return refused end
  letter, queued = riding(me, KEYS[4])
end
if n == 1 then
  created = begin(KEYS[2], KEYS[3], ARGV[4], ARGV[5], ARGV[6], now, c[4])
else
-- include: create
  local stamp = cmsgpack.pack(now)
  local number = numbering(stamp)
  for first = 5, n + 4, AT_ONCE do
    local places = newcomers(ARGV, KEYS[2], first, math.min(first + AT_ONCE - 1, n + 4))
    local seq, marks, records = redis.call('HLEN', KEYS[2]) + (c[4] or 0), {}, {}
    for j, i in ipairs(places) do
      local lead, low = number(seq + j)
      marks[2 * j - 1], marks[2 * j] = ARGV[i], ''
      records[2 * j - 1], records[2 * j] = ARGV[i], ARGV[4] .. ARGV[i + n] .. lead .. low .. stamp
    end
    if #places > 0 then
      redis.call('HSET', KEYS[2], unpack(marks))
      redis.call('HSET', KEYS[3], unpack(records))
    end
    created = created + #places
  end
end
if plain then return created end
return {letter, queued, created}
