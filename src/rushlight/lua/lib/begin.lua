-- Creates one task running on this worker: no container held its key before. `gone`: how many tasks were removed.
-- Returns 1 if it was new.
local function begin(index, running, who, key, head, now, gone)
  if redis.call('HSETNX', index, key, '') == 0 then return 0 end
  local stamp = cmsgpack.pack(now)
  redis.call('HSET', running, key,
    who .. head .. stamp .. cmsgpack.pack(redis.call('HLEN', index) + (gone or 0)) .. stamp)
  return 1
end
