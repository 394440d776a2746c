-- Tasks by key: the state of each, and its record where asked for.
-- KEYS: control index queued running finished failed lapses.
-- ARGV: '1' for records, then the keys.
-- Reply: {epoch or '', per key: {'' | 'q' | 'r' | 'f' | 'x'}, or {letter, record, worker, attempt and condition
--   of the last attempt or ''} of a task that is there}.
local reply = {redis.call('HGET', KEYS[1], 'epoch') or ''}
local full = ARGV[1] == '1'
for i = 2, #ARGV do
  local key = ARGV[i]
  local at = redis.call('HGET', KEYS[2], key)
  local letter, record = '', false
  if at and at ~= '' then
    letter = 'f'
    record = full and redis.call('LINDEX', KEYS[5], at)
  elseif at then
    for place, name in pairs({[3] = 'q', [4] = 'r', [6] = 'x'}) do
      if redis.call('HEXISTS', KEYS[place], key) == 1 then
        letter = name
        record = full and redis.call('HGET', KEYS[place], key)
      end
    end
  end
  local lapse = record and redis.call('HGET', KEYS[7], key) or ''
  reply[#reply + 1] = record and {letter, record, lapse} or {letter}
end
return reply
