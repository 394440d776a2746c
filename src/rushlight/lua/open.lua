-- Gives a network its epoch: the first write to a name that holds nothing.
-- KEYS: control.  ARGV: proposed epoch, format version.
-- Reply: {epoch, format} as they stand now.
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[1])
redis.call('HSETNX', KEYS[1], 'format', ARGV[2])
return redis.call('HMGET', KEYS[1], 'epoch', 'format')
