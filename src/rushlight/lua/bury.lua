-- include: gate line settle lose
-- Ends workers whose process has ended, or that leave: final state, exit report, and the fate of tasks
-- they still held. A state that was final before stays (a killed worker's process dies later); the exit
-- report is kept even so, the first that says how the process ended. Only the life the token names is ended. Letter i: it is about to come back.
-- KEYS: control running failed failures tallies workers events, then the line, then ends.
-- ARGV: epoch, '1' where interrupted workers are to come back, then per worker: id, token, letter, condition,
--   report (packed), and where it is known what its process was at ('' else) the number of the last claim that had
--   come to it, and the keys it had taken and not begun, with \0 between them. These go back into the line.
-- Reply: {'ok', ids ended now, keys failed, keys queued again, ids to be started again}, or EPOCH.
local c = redis.call('HMGET', KEYS[1], 'epoch', 'watch')
local refused = wrong_epoch(c[1], ARGV[1])
if refused then return refused end
though_full(KEYS[1])
local keys = losing_keys('ends')
local now, ids, gone, back = clock(), {}, {}, {}
local stamp = cmsgpack.pack(now)

-- A worker that leaves says nothing of its process; its supervisor does, a little later.
local function note_end(wid, report)
  local before = redis.call('HGET', keys.ends, wid)
  if before then
    local said = cmsgpack.unpack(report)
    if string.sub(before, #stamp + 1) == report or not (said.exit_code or said.signal) then return end
  end
  redis.call('HSET', keys.ends, wid, stamp .. report)
end

for i = 3, #ARGV, 7 do
  local wid, token, letter = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local status = redis.call('HGET', keys.control, 'w:' .. wid)
  local claim = redis.call('HGET', keys.control, 'c:' .. wid)
  if status and string.sub(status, 2) == token then
    note_end(wid, ARGV[i + 4])
    if ARGV[2] == '1' and letter ~= 'i' and is_interrupted(status) then
      back[#back + 1] = wid
    elseif retire(keys, wid, status, letter) then
      ids[#ids + 1] = wid
      spare(keys, wid, claim, ARGV[i + 5], ARGV[i + 6])
      local said, lost = card(keys, wid), letter == 'l' or letter == 'i'
      -- Killed here means by its supervisor, whose time was over: no fault of the task's.
      gone[wid] = {condition = ARGV[i + 3], requeue = lost and said.on_lost == 'requeue',
        crashes = letter ~= 't' and said.crashes or nil}
    end
  end
end
local failed, again = {}, {}
if #ids > 0 then failed, again = lose(keys, gone, now) end
announce(keys.events, c[2], now)
return {'ok', ids, failed, again, back}
