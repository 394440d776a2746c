-- Runs commands that read at one instant. Only for a server whose memory is full: Redis then refuses whatever
-- stands inside MULTI, also what only reads, while a script that writes nothing passes.
-- KEYS: the key of each command.  ARGV: per command: its name, the number of its other arguments, these.
-- Reply: the replies, in order.
local replies, at = {}, 1
for n = 1, #KEYS do
  local name, count = ARGV[at], tonumber(ARGV[at + 1])
  replies[n] = redis.call(name, KEYS[n], unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
return replies
