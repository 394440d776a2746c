-- What controllers say of themselves: what each has handed out, and how far it has read. Needs gate.

-- The process of one that was held to be gone, and of which but a push was heard since.
local NOT_HEARD = '?:0:0'
-- It holds nothing: all that it was ever given is handed out.
local ALL = 9007199254740991

-- Says that a collector is there, and up to which number of its calls all that it was given was handed out.
-- `sending`: the how many-th of its packets this is. One that is no later than the last that was heard says nothing
-- new: then false. Also returns with which packet the collector began, or has begun again since it was held to be
-- gone; 0 where it is gone. That stays known of it for a while (field `n:` of control, lua/uncollect.lua).
local function heed(control, token, handed_out, process, sending)
  local said = redis.call('HMGET', control, 'k:' .. token, 'n:' .. token)
  local last, began = 0, 0
  if said[2] then last, began = unpack(cmsgpack.unpack(said[2])) end
  local there = said[1] and cmsgpack.unpack(said[1])[3] ~= NOT_HEARD
  sending = tonumber(sending)
  if last >= sending then return false, there and began or 0 end
  if not there then began = sending end
  redis.call('HSET', control, 'k:' .. token, cmsgpack.pack({tonumber(handed_out), clock(), process}),
    'n:' .. token, cmsgpack.pack({sending, began}))
  return true, began
end

-- Says how far a controller has read the ends of calls, whose results its own futures may wait for: nothing behind
-- that is removed. `word`: '' (nothing new), 'begin' (from now on), 'idle' and the number of its last push (it waits
-- for nothing), or two places. Only a push that came after that (field `s:` of control), or a new beginning, makes one
-- that is idle wait again. Returns 1 where it waits and was held to be gone: what it has not read may be.
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
