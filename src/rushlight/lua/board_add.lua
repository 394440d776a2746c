-- include: gate author board
-- Puts a key on a leaderboard, or moves it to a new score; behind those of the same score that came before.
-- The same score again changes nothing.
-- KEYS: control queued boards standings.
-- ARGV: epoch, worker id or '' (a manager), token, board, order or '' (the board's own, at first 'max'),
--   key, rank bytes for order 'max', rank bytes for order 'min'.
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
local front = board .. '\0' .. (order == 'max' and ARGV[7] or ARGV[8]) .. '\0'
local member = redis.call('HGET', standings, place)
if not member or string.sub(member, 1, #front) ~= front then
  if member then redis.call('ZREM', boards, member) end
  local arrival = redis.call('HINCRBY', standings, '', 1)
  member = front .. string.format('%014x', arrival) .. ARGV[6]
  redis.call('ZADD', boards, 0, member)
  redis.call('HSET', standings, place, member)
end
reply[4] = rank_of(boards, board, member)
return reply
