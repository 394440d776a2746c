-- The plain case, by far the most frequent: a running worker of a network that uses the plain queue alone and
-- does not drain, and one task. It stands in front of the general one, and leaves the call to that before the
-- first write where anything is otherwise. A network in which a task was tried again is not plain (field `line`), so
-- entries of the queue are bare keys here. Needs gate.

-- Places that were cut from the front of `finished`, as its tasks were collected and are not kept.
local base = 0

-- What the control hash says, if the caller is such a worker: its fifth part is watch, then come those of the fields
-- that are named.
local function plain_worker(...)
  local c = redis.call('HMGET', KEYS[1], 'epoch', 'w:' .. ARGV[2], 'drain', 'line', 'watch', ...)
  if c[1] ~= ARGV[1] or c[2] ~= 'r' .. ARGV[3] or c[3] then return nil end
  if c[4] then
    base = tonumber(string.match(c[4], '^b(%d+)$'))
    if not base then return nil end
  end
  return c
end

-- The running record of the task that a verdict finishes, if it does and its attempt holds the task. `at`: where
-- the verdict begins in ARGV (kind, who, key, payload).
local function plain_record(at)
  if ARGV[at] ~= 'f' then return nil end
  local value, who = redis.call('HGET', KEYS[3], ARGV[at + 2]), ARGV[at + 1]
  return value and string.sub(value, 1, #who) == who and value
end

local function finish_plain(at, value, stamp)
  local key = ARGV[at + 2]
  redis.call('HDEL', KEYS[3], key)
  local length = redis.call('RPUSH', KEYS[4], '\156' .. value .. stamp .. ARGV[at + 3])
  redis.call('HSET', KEYS[2], key, length - 1 + base)
  if redis.call('HINCRBY', KEYS[5], 'f:' .. ARGV[2], 1) == 1 then redis.call('HSETNX', KEYS[5], '', WIDE) end
end

-- Takes the next queued task: its key and record; false where there is none, nil where claim `number` was answered
-- before.
local function next_plain(queue, queued, claim, number)
  if claim and string.sub(claim, 1, 14) >= number then return nil end
  while true do
    local key = redis.call('LPOP', queue)
    if not key then return false end
    local value = redis.call('HGET', queued, key)
    -- None: it was cancelled.
    if value then return key, value end
  end
end

-- Marks it running; returns its record.
local function take_plain(running, queued, worker, key, value, number, stamp)
  value = worker .. value .. stamp
  redis.call('HDEL', queued, key)
  redis.call('HSET', running, key, value)
  redis.call('HSET', KEYS[1], 'c:' .. ARGV[2], number .. key)
  return value
end
