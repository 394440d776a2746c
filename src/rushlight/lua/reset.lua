-- include: gate
-- Deletes a network, or only its tasks. Workers of a network that goes are named, so that their bells go
-- with it; one that came meanwhile is told to the caller, which stops it and calls again.
-- Whoever waits for events is woken and finds nothing; the stream itself is left to the caller, to be deleted
-- after that: a client that waits for a key hears of what was added to it, not of its end.
-- KEYS (whole network): control files workers events, then every other key, then the bell of each worker.
-- KEYS (tasks only): control files events, then the keys of task data.
-- ARGV: epoch, 'all' or 'tasks', new epoch, then the workers' ids.
-- Reply: {'ok', keys deleted, references to files nobody needs any more}, or {'WORKERS', ids not named}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
though_full(KEYS[1])
-- Lua cannot pass thousands of arguments at once.
local function unlink(first)
  local n = 0
  for i = first, #KEYS, 1000 do n = n + redis.call('UNLINK', unpack(KEYS, i, math.min(i + 999, #KEYS))) end
  return n
end
if ARGV[2] == 'tasks' then
  local fields = redis.call('HKEYS', KEYS[1])
  for _, field in ipairs(fields) do
    local of_tasks = field == 'drain' or field == 'line' or field == 'places' or field == 'derived'
      or field == 'gone' or field == 'blank' or field == 'base'
    local letter = string.sub(field, 1, 2)
    if of_tasks or letter == 'c:' or letter == 'k:' or letter == 'n:' or letter == 's:' then redis.call('HDEL', KEYS[1], field) end
  end
  -- A new epoch, so that every reader drops what it had read; members keep their tokens and go on.
  redis.call('HSET', KEYS[1], 'epoch', ARGV[3])
  local files, entries = {}, redis.call('HGETALL', KEYS[2])
  for i = 1, #entries, 2 do
    if string.sub(entries[i], 1, 6) == 'blobs:' then
      files[#files + 1] = entries[i + 1]
      redis.call('HDEL', KEYS[2], entries[i])
    end
  end
  begun(KEYS[3])
  return {'ok', unlink(4), files}
end
local named, unknown = {}, {}
for i = 4, #ARGV do named[ARGV[i]] = true end
for _, wid in ipairs(redis.call('HKEYS', KEYS[3])) do
  if not named[wid] then unknown[#unknown + 1] = wid end
end
if #unknown > 0 then return {'WORKERS', unknown} end
local files = redis.call('HVALS', KEYS[2])
begun(KEYS[4])
redis.call('PEXPIRE', KEYS[4], 1000)
return {'ok', redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3]) + unlink(5), files}
