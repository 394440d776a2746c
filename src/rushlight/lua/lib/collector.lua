-- What controllers say of themselves: what each has handed out, and how far it has read. Needs gate.

-- Says that a collector is there, and up to which number of its calls all that it was given was handed out. A call
-- that comes late takes nothing back of what was said since.
local function heed(control, token, handed_out, process)
  local before = redis.call('HGET', control, 'k:' .. token)
  handed_out = tonumber(handed_out)
  if before then handed_out = math.max(handed_out, cmsgpack.unpack(before)[1]) end
  redis.call('HSET', control, 'k:' .. token, cmsgpack.pack({handed_out, clock(), process}))
end

-- Says how far a controller has read the ends of calls, whose results its own futures may wait for: nothing behind
-- that is removed. `word`: '' (nothing new), 'begin' (from now on), 'idle' and the number of its last push (it waits
-- for nothing), or two places. A word that comes late protects what it did, or more: only a push that came after it
-- (field `s:` of control), or a new beginning, makes one that is idle wait again. Returns 1 where it waits and was
-- held to be gone: what it has not read may be.
local function note_feed(keys, token, word)
  if word == 'begin' then
    local base = redis.call('HGET', keys.control, 'base') or 0
    local read = redis.call('LLEN', keys.finished) + base .. ' ' .. redis.call('LLEN', keys.failures)
    redis.call('HSETNX', keys.feeds, token, read)
    return 0
  end
  local pushed = string.match(word, '^idle (%d+)$')
  if pushed then
    local last = redis.call('HGET', keys.control, 's:' .. token)
    if not last or tonumber(last) <= tonumber(pushed) then redis.call('HDEL', keys.feeds, token) end
  elseif word ~= '' then
    local before = redis.call('HGET', keys.feeds, token)
    if not before then return 1 end
    local finished, failures = string.match(word, '^(%d+) (%d+)$')
    local known, failed = string.match(before, '^(%d+) (%d+)$')
    if tonumber(known) <= tonumber(finished) and tonumber(failed) <= tonumber(failures) then
      redis.call('HSET', keys.feeds, token, word)
    end
  end
  return 0
end
