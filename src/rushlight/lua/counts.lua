-- Everything that is counted, at one instant.
-- KEYS: control queued running finished failed leases deadlines.
-- Reply: {epoch or '', queued, running, finished, failed, live workers, leases and deadlines run out}.
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000000 + t[2])
return {
  redis.call('HGET', KEYS[1], 'epoch') or '', redis.call('HLEN', KEYS[2]), redis.call('HLEN', KEYS[3]),
  redis.call('LLEN', KEYS[4]), redis.call('HLEN', KEYS[5]), redis.call('ZCARD', KEYS[6]),
  redis.call('ZCOUNT', KEYS[6], '-inf', now) + redis.call('ZCOUNT', KEYS[7], '-inf', now),
}
