-- include: gate budget
-- Gives back the unit of a budget that this worker holds and has not used.
-- KEYS: control queued tallies budgets events.
-- ARGV: epoch, worker id, token, budget, number of the call (counted with those of `take`).
-- Reply: {letter, queued or -1, 1 or 0 (there was none)}, or a refusal of the gate.
local wid, name, number = ARGV[2], ARGV[4], tonumber(ARGV[5])
local refused, me = worker_gate(KEYS[1], ARGV[1], wid, ARGV[3])
if refused then return refused end
local books = {control = KEYS[1], tallies = KEYS[3], budgets = KEYS[4]}
local letter, queued = riding(me, KEYS[2])
local hold = hold_of(books, name, wid)
if not hold or hold.token ~= ARGV[3] then return {letter, queued, 0} end
if number <= hold.number then return {letter, queued, hold.told} end
local unused = hold.held and fate(books, wid, hold) == 'held'
if unused then
  lay_down(books, name, hold, false)
  announce(KEYS[5], me.watch, clock())
end
hold.number, hold.told = number, unused and 1 or 0
keep(books, name, wid, hold)
return {letter, queued, hold.told}
