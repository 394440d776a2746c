-- include: gate
-- Appends log entries to the capped stream.
-- KEYS: control logs.  ARGV: epoch, most entries to keep, worker id, then the entries (packed).
-- Reply: {'ok', number of entries}, or EPOCH.
local refused = wrong_epoch(redis.call('HGET', KEYS[1], 'epoch'), ARGV[1])
if refused then return refused end
for i = 4, #ARGV do
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'w', ARGV[3], 'e', ARGV[i])
end
return {'ok', #ARGV - 3}
