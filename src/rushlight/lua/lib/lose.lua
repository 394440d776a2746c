-- What becomes of workers that are no more, and of their tasks. Needs gate, line, settle.

-- The keys losing needs, from KEYS[1] on; `more` names those behind the line's.
local function losing_keys(...)
  local keys = line_keys({control = KEYS[1], running = KEYS[2], failed = KEYS[3], failures = KEYS[4],
    tallies = KEYS[5], workers = KEYS[6], events = KEYS[7]}, 8)
  for i, name in ipairs({...}) do keys[name] = KEYS[18 + i] end
  return keys
end

-- The worker of a running task has crashed: the task goes back to the line, unless it has survived as many crashes
-- as its worker's policy allows. They are counted in its options (`k`), apart from its retries.
local function survives(keys, key, value, crashes, condition, now)
  local at_attempt = cmsgpack.unpack_one(value, 0)
  local at, attempt = cmsgpack.unpack_one(value, at_attempt)
  local at_key, opts = cmsgpack.unpack_one(value, at)
  opts = type(opts) == 'table' and opts or {}
  if (opts.k or 0) >= crashes then return false end
  opts.k = (opts.k or 0) + 1
  if opts.t then redis.call('ZREM', keys.deadlines, line_entry(key, attempt)) end
  local counted = string.sub(value, 1, at) .. cmsgpack.pack(opts) .. string.sub(value, at_key + 1)
  again(keys, key, counted, at, attempt, opts, condition, now)
  -- Entries of second attempts are more than the plain queue.
  redis.call('HSET', keys.control, 'line', '1')
  return true
end

-- `gone`: worker id -> {condition = packed map, requeue = bool, crashes = number or nil}. One pass over the running
-- tasks, however many workers went. A task goes back to the line only where its worker's policy says so and an
-- attempt is left, or it survives the crash; else it fails. Returns the keys that failed and those queued again.
local function lose(keys, gone, now)
  local stamp, failed, requeued = cmsgpack.pack(now), {}, {}
  local all = redis.call('HGETALL', keys.running)
  for i = 1, #all, 2 do
    local key, value = all[i], all[i + 1]
    local _, wid = cmsgpack.unpack_one(value, 0)
    local fate = gone[wid]
    if fate then
      redis.call('HDEL', keys.running, key)
      redis.call('HINCRBY', keys.tallies, 'x:' .. wid, 1)
      if fate.crashes and survives(keys, key, value, fate.crashes, fate.condition, now) then
        requeued[#requeued + 1] = key
      elseif fate.requeue and lapse(keys, key, value, fate.condition, stamp, now) then
        requeued[#requeued + 1] = key
      else
        if not fate.requeue then fail(keys, key, value, fate.condition, stamp) end
        failed[#failed + 1] = key
      end
    end
  end
  -- Also where nothing was queued again: the worker may have taken the bell's token with it.
  if redis.call('HLEN', keys.queued) > 0 then ring(keys.bell) end
  return failed, requeued
end

-- Ends a worker's membership under a final letter; false where it had ended before. Under letter i it is expected
-- back, as long as its lease goes on; so is one that leaves to change its loop.
local function retire(keys, wid, status, letter)
  if redis.call('HDEL', keys.control, 'u:' .. wid) == 1 and letter == 't' then letter = 'i' end
  if letter ~= 'i' then redis.call('ZREM', keys.leases, wid) end
  redis.call('HDEL', keys.control, 'c:' .. wid)
  if not is_live(status) and not is_interrupted(status) then return false end
  redis.call('HSET', keys.control, 'w:' .. wid, letter .. string.sub(status, 2))
  if letter ~= 'i' then share_private(keys, wid) end
  return true
end

local function card(keys, wid)
  local stored = redis.call('HGET', keys.workers, wid)
  if not stored then return {} end
  local at = cmsgpack.unpack_one(stored, 0)
  local _, said = cmsgpack.unpack_one(stored, at)
  return said
end

-- Whether the task is one of several that its worker has taken and tells of later: then nobody but the worker
-- knows which it is at (see lib/claim).
local function took_ahead(keys, wid, key)
  local claim = redis.call('HGET', keys.control, 'c:' .. wid)
  return claim and string.byte(claim, 15) == 0
    and string.find(string.sub(claim, 15) .. '\0', '\0' .. key .. '\0', 1, true) ~= nil
end

-- Puts a running task that was never begun back where it was: first in line, in the same attempt. Said of tasks
-- in the opposite order, they stand as before.
local function give_back(keys, wid, key)
  local value = redis.call('HGET', keys.running, key)
  if not value then return end
  local at_attempt, holder = cmsgpack.unpack_one(value, 0)
  if holder ~= wid then return end
  local at, attempt = cmsgpack.unpack_one(value, at_attempt)
  local _, opts = cmsgpack.unpack_one(value, at)
  redis.call('HDEL', keys.running, key)
  redis.call('HSET', keys.queued, key, string.sub(value, at_attempt + 1, #value - 9))
  line_up_first(keys, line_entry(key, attempt), opts)
end

-- Puts back what a worker that has ended had taken and not begun: `unbegun`, or all of `claim` (the last the server
-- has answered) where that had not come to it yet, but claim `number` at the latest.
local function spare(keys, wid, claim, number, unbegun)
  if number == '' then return end
  if claim and string.byte(claim, 15) == 0 and string.sub(claim, 1, 14) > number then unbegun = string.sub(claim, 15) end
  local names = {}
  for key in string.gmatch(unbegun, '[^%z]+') do table.insert(names, 1, key) end
  for _, key in ipairs(names) do give_back(keys, wid, key) end
end

-- A task was taken from its worker. One under a supervisor ends with it: it may hang in the task, so its process
-- is replaced, and until then it may not write (letter i; one that was asked to leave has left). What becomes of
-- its other tasks is its policy's business, as with any loss.
local function interrupt(keys, wid, gone)
  local status = redis.call('HGET', keys.control, 'w:' .. wid)
  local said = card(keys, wid)
  if said.supervisor ~= '' and is_live(status) then
    local asked = string.sub(status, 1, 1) == 'd'
    -- The lease goes on: until it runs out, or its supervisor brings it back, the worker is expected.
    retire(keys, wid, status, asked and 't' or 'i')
    gone[wid] = {condition = cmsgpack.pack({message = 'Worker was killed', type = 'WorkerKilled'}),
      requeue = said.on_lost == 'requeue', crashes = said.crashes}
    redis.call('XADD', keys.orders, 'MAXLEN', '~', 1000, '*', 'o',
      cmsgpack.pack({op = 'replace', worker_ids = {wid}, token = string.sub(status, 2)}))
  end
end
