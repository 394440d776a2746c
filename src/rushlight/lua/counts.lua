-- Everything that is counted, at one instant.
-- KEYS: control queued running finished failed leases deadlines.
-- Reply: {epoch or '', queued, running, finished, failed, live workers, leases and deadlines run out}.
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000000 + t[2])
-- Those that were removed have left empty places.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'blank')
return {
  c[1] or '', redis.call('HLEN', KEYS[2]), redis.call('HLEN', KEYS[3]),
  redis.call('LLEN', KEYS[4]) - (c[2] or 0), redis.call('HLEN', KEYS[5]), redis.call('ZCARD', KEYS[6]),
  redis.call('ZCOUNT', KEYS[6], '-inf', now) + redis.call('ZCOUNT', KEYS[7], '-inf', now),
}
