-- include: gate
-- Gives a network its epoch: the first write to a name that holds nothing. It holds for a minute, and for good
-- once it is confirmed: a packet that arrives after a reset finds nobody to confirm it, and leaves nothing.
-- KEYS: control events.
-- ARGV: proposed epoch ('': only to be told), '1' to confirm this epoch.
-- Reply: {epoch or '', 1 if it is to be confirmed}.
local control = KEYS[1]
if ARGV[2] == '1' then
  if redis.call('HGET', control, 'epoch') == ARGV[1] and redis.call('PERSIST', control) == 1 then
    begun(KEYS[2])
  end
elseif ARGV[1] ~= '' and redis.call('HSETNX', control, 'epoch', ARGV[1]) == 1 then
  redis.call('PEXPIRE', control, 60000)
end
return {redis.call('HGET', control, 'epoch') or '', redis.call('PTTL', control) >= 0 and 1 or 0}
