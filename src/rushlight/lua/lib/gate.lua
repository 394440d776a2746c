-- Who may write. The control hash is read once; everything a reply must carry rides on that read.

-- The epoch check every writing script makes: nil when `epoch` is the network's own.
local function wrong_epoch(current, epoch)
  if current == epoch then return nil end
  return {'EPOCH', current or ''}
end

local function is_live(status)
  local letter = status and string.sub(status, 1, 1)
  return letter == 'r' or letter == 'd' or letter == 's'
end

-- Waits for its process to be replaced: its task was taken from it (letter i).
local function is_interrupted(status)
  return status and string.sub(status, 1, 1) == 'i'
end

-- Places that were cut from the front of `finished`, as its tasks were collected and are not kept.
local base = 0

-- A worker's entry: returns the refusal, or nil and the record of what the read told.
-- A worker that was declared lost, killed or replaced (another token) gets GONE and its letter.
local function worker_gate(control, epoch, wid, token)
  local c = redis.call('HMGET', control, 'epoch', 'drain', 'watch', 'w:' .. wid, 'c:' .. wid, 'line', 'ends', 'base')
  base = tonumber(c[8] or 0)
  if c[1] ~= epoch then return {'EPOCH', c[1] or '', (c[4] and string.sub(c[4], 2) == token) and 1 or 0} end
  if not c[4] or string.sub(c[4], 2) ~= token then return {'GONE', 'l'} end
  local letter = string.sub(c[4], 1, 1)
  if not is_live(c[4]) then return {'GONE', letter} end
  return nil, {
    letter = letter, drain = c[2], watch = c[3], moves = c[3] ~= c[7] and c[3], claim = c[5], line = c[6] == '1',
    removed = c[8],
  }
end

-- A small hash is a plain list to the server, which goes through it field by field at every look. One value this
-- long makes it a table: with 200 workers, what a call asks of the control hash is found in a thirtieth of the time.
local WIDE = 'a value of more than 64 bytes, so that fields of this hash are found at once'

-- The keys of the line, from KEYS[at] on. A network whose tasks use nothing but the plain queue (control
-- says so by having no field `line`) needs only the first ones: then `keys.full` is nil, and a script that
-- finds more in use answers LINE, to be called again with all of them.
local function line_keys(keys, at)
  keys.queued, keys.queue = KEYS[at], KEYS[at + 1]
  if #KEYS < at + 10 then
    keys.bell = KEYS[at + 2]
    return keys
  end
  keys.full = true
  keys.ranked, keys.private, keys.delayed = KEYS[at + 2], KEYS[at + 3], KEYS[at + 4]
  keys.bell, keys.leases = KEYS[at + 5], KEYS[at + 6]
  keys.waiting, keys.dependents = KEYS[at + 7], KEYS[at + 8]
  keys.lapses, keys.deadlines = KEYS[at + 9], KEYS[at + 10]
  return keys
end

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- A server whose memory is full refuses a script whose first write may take some. Renewals, orders and ends
-- take next to none and must go on, or every worker would be lost: a write that takes none lets them pass.
local function though_full(control)
  redis.call('HDEL', control, '')
end

-- One entry is enough: watchers wake and read from their own cursors. Moves other than ends are for those alone who
-- want to hear of them (lua/watch.lua): they are announced only where `watch` is not what `ends` is.
local function announce(events, watch, now)
  if watch and tonumber(watch) > now then redis.call('XADD', events, 'MAXLEN', 1, '*', 'e', '') end
end

-- A network begins, goes, or has lost its tasks: whoever waits on this name is to look again.
local function begun(events)
  redis.call('XADD', events, 'MAXLEN', 1, '*', 'e', '')
end

-- At most one token: a waiter that takes it rings again if it leaves tasks behind.
local function ring(bell)
  if redis.call('EXISTS', bell) == 0 then redis.call('RPUSH', bell, '1') end
end

-- The head of every reply to a worker: its letter, and the queue's length where it drains (else -1).
local function riding(me, queued)
  return me.letter, me.drain and redis.call('HLEN', queued) or -1
end
