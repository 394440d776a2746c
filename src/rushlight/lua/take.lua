-- include: gate budget
-- Takes a unit of a budget; the one this worker still holds is spent by that. Calls are numbered per worker
-- and budget: a late duplicate gets the stored answer.
-- KEYS: control queued tallies budgets events.
-- ARGV: epoch, worker id, token, budget, number of the call, units there are, the worker's process.
-- Reply: {letter, queued or -1, 1 or 0, units held by workers of other processes}, or a refusal of the gate.
local wid, name, number = ARGV[2], ARGV[4], tonumber(ARGV[5])
local refused, me = worker_gate(KEYS[1], ARGV[1], wid, ARGV[3])
if refused then return refused end
local books = {control = KEYS[1], tallies = KEYS[3], budgets = KEYS[4]}
local letter, queued = riding(me, KEYS[2])
local hold = hold_of(books, name, wid)
local mine = hold and hold.token == ARGV[3]
if mine and number <= hold.number then return {letter, queued, hold.told, 0} end

local changed = false
if hold and hold.held then
  lay_down(books, name, hold, mine or fate(books, wid, hold) == 'spent')
  changed = true
end
hold = {token = ARGV[3], number = number, told = 0, held = false, done = 0, place = ARGV[7]}
local function left() return tonumber(ARGV[6]) - total(books, name, 's') - total(books, name, 'h') end
if left() <= 0 then
  each_hold(books, name, function(other, theirs)
    local became = fate(books, other, theirs)
    if became ~= 'held' then
      lay_down(books, name, theirs, became == 'spent')
      keep(books, name, other, theirs)
    end
  end)
end
-- A worker that was asked to leave gets no more work.
if letter == 'r' and left() > 0 then
  hold.told, hold.held, hold.done = 1, true, finished_by(books, wid)
  redis.call('HINCRBY', books.budgets, name .. '\0h', 1)
end
keep(books, name, wid, hold)
local elsewhere = 0
if hold.told == 0 then
  each_hold(books, name, function(_, theirs)
    if theirs.place ~= hold.place then elsewhere = elsewhere + 1 end
  end)
end
-- Others may wait for the last units to be spent or to come back.
if changed and left() <= 0 then announce(KEYS[5], me.watch, clock()) end
return {letter, queued, hold.told, elsewhere}
