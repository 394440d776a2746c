-- include: gate
-- What a waiter must know before it blocks, and the promise to wake it: until the deadline every change
-- rewrites the one entry of `events`. Atomic with the look, so no change falls between.
-- KEYS: control queued running finished failures leases events deadlines.
-- ARGV: microseconds to keep the watch up, how an epoch of this format begins, '1' if the caller waits for nothing but
--   ends of tasks. While all who wait do, `ends` is the same as `watch`, and creating and taking tasks wakes nobody.
-- Reply: {epoch or '', finished, failures, queued, running, live workers, leases and deadlines run out, last
--   event id, microseconds until the next of them runs out or -1}.
local now = clock()
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch', 'ends', 'base')
local due, stands = now + tonumber(ARGV[1]), tonumber(c[2] or 0)
local known = c[1] and string.sub(c[1], 1, #ARGV[2]) == ARGV[2]
local ends_alone = stands <= now or c[3] == c[2]
if known and (stands < due or (ends_alone and ARGV[3] ~= '1')) then
  though_full(KEYS[1])
  local deadline = string.format('%.0f', math.max(due, stands + 1))
  redis.call('HSET', KEYS[1], 'watch', deadline)
  if ends_alone and ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'ends', deadline) end
end
local until_now = string.format('%.0f', now)
local next_due = -1
for _, key in ipairs({KEYS[6], KEYS[8]}) do
  local first = redis.call('ZRANGEBYSCORE', key, '(' .. until_now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local left = first[2] and tonumber(first[2]) - now
  if left and (next_due < 0 or left < next_due) then next_due = left end
end
local last = redis.call('XREVRANGE', KEYS[7], '+', '-', 'COUNT', 1)
return {
  c[1] or '', redis.call('LLEN', KEYS[4]) + (c[4] or 0), redis.call('LLEN', KEYS[5]), redis.call('HLEN', KEYS[2]),
  redis.call('HLEN', KEYS[3]), redis.call('ZCARD', KEYS[6]),
  redis.call('ZCOUNT', KEYS[6], '-inf', until_now) + redis.call('ZCOUNT', KEYS[8], '-inf', until_now),
  last[1] and last[1][1] or '0-0', next_due,
}
