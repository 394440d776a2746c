-- include: gate collector
-- Removes ended tasks that a collector of results which are not kept has handed out for good, once every controller
-- has read that far: their records, what says of them where they are and who had them, and the values that are theirs
-- alone. A place in the list of finished tasks stays, empty, so that all other places stay true, until all in front
-- of it are empty, too: then they are cut off, and counted in `base`. Sent again, it finds them gone.
-- KEYS: control index finished failed failures collected feeds lapses deadlines names blobs files.
-- ARGV: epoch, collector, number up to which all was handed out, the collector's process, how far it has read, number
--   of the packet (lib/collector), then per task: key, place among the failures or '', how many fields of blobs are
--   its own, these.
-- Reply: {'ok', per task 1 (it is gone, or is to stay) or 0 (not yet), references to files nobody needs any more},
--   or EPOCH.
local control, index, finished, failures = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local refused = wrong_epoch(redis.call('HGET', control, 'epoch'), ARGV[1])
if refused then return refused end
though_full(control)
if heed(control, ARGV[2], ARGV[3], ARGV[4], ARGV[6]) then
  note_feed({control = control, feeds = KEYS[7], finished = finished, failures = failures}, ARGV[2], ARGV[5])
end

-- How far all have read.
local read_finished, read_failures = math.huge, math.huge
for _, said in ipairs(redis.call('HVALS', KEYS[7])) do
  local first, second = string.match(said, '^(%d+) (%d+)$')
  read_finished, read_failures = math.min(read_finished, tonumber(first)), math.min(read_failures, tonumber(second))
end

local handed_out = {}
-- Whether a mark in `collected` is of results that are not to stay, and the user has surely had this one.
local function is_final(mark)
  local token, number = string.match(mark, '^(.*):(%d+)$')
  if handed_out[token] == nil then
    local said = redis.call('HGET', control, 'k:' .. token)
    -- One that has left has given back what it had not handed out.
    handed_out[token] = said and cmsgpack.unpack(said)[1] or math.huge
  end
  return tonumber(number) <= handed_out[token]
end

local tasks, keys, at = {}, {}, 7
while at <= #ARGV do
  local own = tonumber(ARGV[at + 2])
  tasks[#tasks + 1] = {place = ARGV[at + 1], first = at + 3, last = at + 2 + own}
  keys[#keys + 1] = ARGV[at]
  at = at + 3 + own
end
if #keys == 0 then return {'ok', {}, {}} end

local marks, verdicts, gone, limits, failed, blank = redis.call('HMGET', KEYS[6], unpack(keys)), {}, {}, {}, {}, 0
local files, seen = {}, {}
local cut = redis.call('HGET', control, 'base')
local base = tonumber(cut or 0)
for i, place in ipairs(redis.call('HMGET', index, unpack(keys))) do
  local key, task, mark, done = keys[i], tasks[i], marks[i], true
  -- Else it is gone, or was given back, or is an archive's.
  if place and mark and string.sub(mark, 1, 1) == '~' and not seen[key] then
    done = is_final(mark)
    seen[key] = done
    if done and place ~= '' then
      done = tonumber(place) < read_finished
      if done then
        redis.call('LSET', finished, place - base, '')
        blank = blank + 1
        gone[#gone + 1] = key
      end
    elseif done and redis.call('HEXISTS', KEYS[4], key) == 1 then
      local there = tonumber(task.place)
      done = read_failures == math.huge or (there ~= nil and there < read_failures)
      if done then
        if there and redis.call('LINDEX', failures, there) == key then redis.call('LSET', failures, there, '') end
        failed[#failed + 1], gone[#gone + 1] = key, key
      end
    end
    -- Else it was queued again: its end is yet to come.
    if gone[#gone] == key then
      limits[#limits + 1] = key .. '\0q'
      local name = string.match(key, '^(.-)\31')
      if name and redis.call('HGET', KEYS[10], name) == key then redis.call('HDEL', KEYS[10], name) end
      for j = task.first, task.last do
        redis.call('HDEL', KEYS[11], ARGV[j])
        local file = redis.call('HGET', KEYS[12], 'blobs:' .. ARGV[j])
        if file then
          files[#files + 1] = file
          redis.call('HDEL', KEYS[12], 'blobs:' .. ARGV[j])
        end
      end
    end
  end
  verdicts[i] = done and 1 or 0
end
if #gone > 0 then
  redis.call('HDEL', index, unpack(gone))
  redis.call('HDEL', KEYS[6], unpack(gone))
  redis.call('HDEL', KEYS[8], unpack(gone))
  redis.call('ZREM', KEYS[9], unpack(limits))
  if #failed > 0 then redis.call('HDEL', KEYS[4], unpack(failed)) end
  redis.call('HINCRBY', control, 'gone', #gone)
  local n = 0
  while n < 2000 and redis.call('LINDEX', finished, n) == '' do n = n + 1 end
  redis.call('HINCRBY', control, 'blank', blank - n)
  if n > 0 or not cut then
    if n > 0 then redis.call('LTRIM', finished, n, -1) end
    base = string.format('%d', base + n)
    redis.call('HSET', control, 'base', base)
    -- A network that uses the plain queue alone is told apart by the field `line`, which is read anyway. Both are
    -- there from the first task on that was removed.
    if redis.call('HGET', control, 'line') ~= '1' then redis.call('HSET', control, 'line', 'b' .. base) end
  end
end
return {'ok', verdicts, files}
