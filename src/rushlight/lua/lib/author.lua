-- Who writes what is neither a task nor a worker: a member under the gate of workers, or a manager, who gives
-- an empty id and is checked by the epoch alone. Returns the refusal, or nil and the head of the reply
-- ('ok' for a manager, a worker's letter else; then the queue's length for workers where it drains, else -1).
-- Needs gate.
local function author_gate(control, queued, epoch, wid, token)
  if wid == '' then return wrong_epoch(redis.call('HGET', control, 'epoch'), epoch), {'ok', -1} end
  local refused, me = worker_gate(control, epoch, wid, token)
  if refused then return refused end
  return nil, {riding(me, queued)}
end
