-- Budgets: how many units are out. In `budgets`, per budget: name .. \0s units spent, name .. \0h units held,
-- name .. \0w .. worker -> {token, number of its last call, what that was told, 1 where it holds a unit, tasks
-- it had finished when it got it, its process}. A unit is spent once its worker has finished a task after
-- taking it, or takes the next, or has left in good order; it is back once its worker was lost or killed before.
-- Needs gate.

local function hold_of(books, name, wid)
  local packed = redis.call('HGET', books.budgets, name .. '\0w' .. wid)
  if not packed then return nil end
  local hold = cmsgpack.unpack(packed)
  return {token = hold[1], number = hold[2], told = hold[3], held = hold[4] == 1, done = hold[5], place = hold[6]}
end

local function keep(books, name, wid, hold)
  redis.call('HSET', books.budgets, name .. '\0w' .. wid, cmsgpack.pack(
    {hold.token, hold.number, hold.told, hold.held and 1 or 0, hold.done, hold.place}))
end

local function finished_by(books, wid)
  return tonumber(redis.call('HGET', books.tallies, 'f:' .. wid) or 0)
end

-- 'held', 'spent' or 'back'.
local function fate(books, wid, hold)
  if finished_by(books, wid) > hold.done then return 'spent' end
  local status = redis.call('HGET', books.control, 'w:' .. wid)
  -- Another life has the worker's id: this one was lost or killed.
  if not status or string.sub(status, 2) ~= hold.token then return 'back' end
  if is_live(status) then return 'held' end
  return string.sub(status, 1, 1) == 't' and 'spent' or 'back'
end

-- Calls `visit(worker, hold)` for every worker that holds a unit by the books.
local function each_hold(books, name, visit)
  local prefix = name .. '\0w'
  for _, field in ipairs(redis.call('HKEYS', books.budgets)) do
    if string.sub(field, 1, #prefix) == prefix then
      local wid = string.sub(field, #prefix + 1)
      local hold = hold_of(books, name, wid)
      if hold.held then visit(wid, hold) end
    end
  end
end

local function total(books, name, what)
  return tonumber(redis.call('HGET', books.budgets, name .. '\0' .. what) or 0)
end

-- Takes a unit off a worker's hands.
local function lay_down(books, name, hold, spent)
  hold.held = false
  redis.call('HINCRBY', books.budgets, name .. '\0h', -1)
  if spent then redis.call('HINCRBY', books.budgets, name .. '\0s', 1) end
end

-- A worker's id passes to another life: what becomes of the units of the one before is decided while its end can
-- be told, and before the other finishes anything under the same id.
local function close_life(books, wid)
  local ending = '\0w' .. wid
  for _, field in ipairs(redis.call('HKEYS', books.budgets)) do
    if string.sub(field, -#ending) == ending then
      local name = string.sub(field, 1, -#ending - 1)
      local hold = hold_of(books, name, wid)
      if hold.held then
        lay_down(books, name, hold, fate(books, wid, hold) == 'spent')
        keep(books, name, wid, hold)
      end
    end
  end
end
