-- include: gate author board sendings
-- Puts a key on a leaderboard, or moves it to a new score; behind those of the same score that came before.
-- The same score again changes nothing, and neither does a call that its author has made others for the key after.
-- KEYS: control queued boards standings.
-- ARGV: epoch, worker id or '' (a manager), token, board, order or '' (the board's own, at first 'max'),
--   key, sender, number of the sending, rank bytes for order 'max', rank bytes for order 'min'.
-- Reply: {'ok' or letter, queued or -1, order, rank from 0}; or with order alone where the board has another
--   order; or a refusal of the gate.
local refused, reply = author_gate(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if refused then return refused end
local boards, standings, board = KEYS[3], KEYS[4], ARGV[4]
local order = redis.call('HGET', standings, board)
if not order then
  order = ARGV[5] ~= '' and ARGV[5] or 'max'
  redis.call('HSET', standings, board, order)
end
reply[3] = order
if ARGV[5] ~= '' and ARGV[5] ~= order then return reply end
local place = board .. '\0' .. ARGV[6]
local front = board .. '\0' .. (order == 'max' and ARGV[9] or ARGV[10]) .. '\0'
local found = redis.call('HMGET', standings, place, '\0' .. place)
local member, said = found[1], unheard(found[2], ARGV[7], ARGV[8])
if said and (not member or string.sub(member, 1, #front) ~= front) then
  if member then redis.call('ZREM', boards, member) end
  local arrival = redis.call('HINCRBY', standings, '', 1)
  member = front .. string.format('%014x', arrival) .. ARGV[6]
  redis.call('ZADD', boards, 0, member)
end
if said then redis.call('HSET', standings, place, member, '\0' .. place, said) end
reply[4] = rank_of(boards, board, member)
return reply
