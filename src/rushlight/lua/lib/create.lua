-- Creating many tasks at once, with as few commands as one: a call carries all keys, then all heads. Needs gate.

-- Keys per command: a script's stack is bounded.
local AT_ONCE = 1000

-- Which of the keys args[first..last] no task has yet, as places in args; each key once, `most` of them at most.
-- Also the last place that was looked at.
local function newcomers(args, index, first, last, most)
  local places, seen, n = {}, {}, 0
  for i, known in ipairs(redis.call('HMGET', index, unpack(args, first, last))) do
    local key = args[first + i - 1]
    if not known and not seen[key] then
      if n == most then return places, first + i - 2 end
      n = n + 1
      seen[key], places[n] = true, first + i - 1
    end
  end
  return places, last
end

-- A function that gives the bytes of creation time and number of task after task, in two parts that are to be
-- joined: only the number's last byte differs from one to the next.
local function numbering(stamp)
  local run, lead, pack, char = nil, nil, cmsgpack.pack, string.char
  return function(seq)
    if seq < 256 then return stamp, pack(seq) end
    local low = seq % 256
    if seq - low ~= run then run, lead = seq - low, stamp .. string.sub(pack(seq), 1, -2) end
    return lead, char(low)
  end
end
