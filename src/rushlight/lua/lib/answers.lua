-- Answers of managers' calls that must not be carried out twice, and whose caller may ask again as the first
-- answer was lost. In `answers`: call -> its reply; '#' .. number -> call, in order; '' -> the numbers of the
-- first and the last, and the size of all. Kept for a while, and no more of them than the bounds below.
local MOST_ANSWERS, MOST_BYTES = 1000, 4194304

-- The reply to this call, if it was carried out before.
local function answered(answers, call)
  local packed = redis.call('HGET', answers, call)
  return packed and cmsgpack.unpack(packed)
end

-- Keeps the reply to this call for so many milliseconds at least, unless many others come; returns it.
local function answer(answers, call, milliseconds, reply)
  local meta = redis.call('HGET', answers, '')
  local books = meta and cmsgpack.unpack(meta) or {1, 0, 0}
  local first, last, size = books[1], books[2] + 1, books[3]
  local packed = cmsgpack.pack(reply)
  size = size + #packed
  redis.call('HSET', answers, call, packed, '#' .. last, call)
  while first < last and (last - first >= MOST_ANSWERS or size > MOST_BYTES) do
    local old = redis.call('HGET', answers, '#' .. first)
    size = size - redis.call('HSTRLEN', answers, old)
    redis.call('HDEL', answers, '#' .. first, old)
    first = first + 1
  end
  redis.call('HSET', answers, '', cmsgpack.pack({first, last, size}))
  if redis.call('PTTL', answers) < tonumber(milliseconds) then
    redis.call('PEXPIRE', answers, milliseconds)
  end
  return reply
end
