-- include: gate budget
-- How a budget stands: what is out, of which what may come back. Changes nothing.
-- KEYS: control tallies budgets.  ARGV: budget.
-- Reply: {units spent, units held}.
local books = {control = KEYS[1], tallies = KEYS[2], budgets = KEYS[3]}
local counts = {spent = total(books, ARGV[1], 's'), held = 0, back = 0}
each_hold(books, ARGV[1], function(wid, hold)
  local became = fate(books, wid, hold)
  counts[became] = counts[became] + 1
end)
return {counts.spent, counts.held}
