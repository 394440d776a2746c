-- include: board
-- Reads a leaderboard.
-- KEYS: boards standings.
-- ARGV: board, 'rank' and a key, or 'top' and how many (-1: all), or 'len'.
-- Reply: {order or '', rank from 0 or false}, or {order or '', members best first}, or {order or '', length}.
local boards, board = KEYS[1], ARGV[1]
local low, high = span(board)
local order = redis.call('HGET', KEYS[2], board) or ''
if ARGV[2] == 'len' then return {order, redis.call('ZLEXCOUNT', boards, low, high)} end
if ARGV[2] == 'top' then
  return {order, redis.call('ZRANGEBYLEX', boards, low, high, 'LIMIT', 0, ARGV[3])}
end
local member = redis.call('HGET', KEYS[2], board .. '\0' .. ARGV[3])
return {order, member and rank_of(boards, board, member)}
