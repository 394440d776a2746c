-- Leaderboards. All live in one sorted set whose scores are 0, so that its order is the order of bytes:
-- board .. \0 .. rank (8 bytes the client makes of the score, best first) .. \0 .. arrival (14 hex digits)
-- .. key. A board's members are the range between board .. \0 and board .. \1. `standings` says where a
-- key stands: board .. \0 .. key -> its member; and board -> the order ('max' or 'min'). Behind one more \0 in
-- front it remembers who put it there (lib/sendings).

local function span(board)
  return '[' .. board .. '\0', '(' .. board .. '\1'
end

-- The number of members of the board before this one.
local function rank_of(boards, board, member)
  return redis.call('ZLEXCOUNT', boards, '[' .. board .. '\0', '(' .. member)
end
