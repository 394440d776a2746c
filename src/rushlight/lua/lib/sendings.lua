-- What may arrive twice and decides nothing a record could tell: who sent it, and the how many-th of theirs it is.
-- Each place remembers this of the last who wrote there, so that a number they have passed changes nothing.
local MOST_SENDERS = 8

-- `said`: what the place remembers, 'sender number ...', the last who wrote first. Returns what it is to remember
-- now, or nil where this number was heard, or a later one. Numbers compare like their text.
local function unheard(said, sender, number)
  local kept = {sender .. ' ' .. number}
  for other, last in string.gmatch(said or '', '(%S+) (%S+)') do
    if other == sender then
      if last >= number then return nil end
    elseif #kept < MOST_SENDERS then
      kept[#kept + 1] = other .. ' ' .. last
    end
  end
  return table.concat(kept, ' ')
end
