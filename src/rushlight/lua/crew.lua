-- What decides how many workers there should be, at one instant; as long as those that are there and those that
-- were launched, however many there have been.
-- KEYS: control queued running leases launches tallies.
-- Reply: {epoch or '', queued, running, leases run out, {per member: id, letter, tasks it has ended}, {ids of those
--   at work}, {per launch: worker id, what is told of it, letter or '' (not registered), '1' if it has been running}}.
local t = redis.call('TIME')
local members, at_work, launches = {}, {}, {}
local function letter(wid)
  return string.sub(redis.call('HGET', KEYS[1], 'w:' .. wid) or '', 1, 1)
end
for _, wid in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  local ended = redis.call('HMGET', KEYS[6], 'f:' .. wid, 'x:' .. wid)
  members[#members + 1] = wid
  members[#members + 1] = letter(wid)
  members[#members + 1] = (tonumber(ended[1]) or 0) + (tonumber(ended[2]) or 0)
end
for _, value in ipairs(redis.call('HVALS', KEYS[3])) do
  local _, wid = cmsgpack.unpack_one(value, 0)
  at_work[#at_work + 1] = wid
end
local noted = redis.call('HGETALL', KEYS[5])
for i = 1, #noted, 2 do
  launches[#launches + 1] = noted[i]
  launches[#launches + 1] = noted[i + 1]
  launches[#launches + 1] = letter(noted[i])
  launches[#launches + 1] = redis.call('HGET', KEYS[1], 'r:' .. noted[i]) or ''
end
return {
  redis.call('HGET', KEYS[1], 'epoch') or '', redis.call('HLEN', KEYS[2]), redis.call('HLEN', KEYS[3]),
  redis.call('ZCOUNT', KEYS[4], '-inf', string.format('%.0f', t[1] * 1000000 + t[2])),
  members, at_work, launches,
}
