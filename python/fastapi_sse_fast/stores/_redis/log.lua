-- The log of a channel or a run. Each operation is one atomic step.
--
-- KEYS[1]   the key of the log, `<prefix>{<name>}`. Derived keys:
--             <key>          hash: epoch, top, server, earlier; of runs also id, state, owner,
--                            worker, cancel, met, lost, lost_without_id, lease, ttl
--             <key>:s        stream of a channel; its entries have the ids `<offset>-0`
--             <key>:s:<id>   stream of a run
--             <key>:d        sorted set of a channel: keys of publishers by offset
--             <key>:l        lease of a run; it expires unless the owner renews it
--             <key>:o:<id>   hash of a run that another one of the name has followed
-- ARGV[1]   the operation
-- ARGV[2]   which server process the caller is connected to
-- ARGV[3]   '1' if the operation may have been done already, without an answer
-- ARGV[4]   the next epoch, if a log begins anew
-- ARGV[5]   the set of all runs that are running
-- ARGV[6..] arguments of the operation
--
-- No result depends on a clock: a lease that expires only means that its run may be ended.

local key, server, candidate, running_set = KEYS[1], ARGV[2], ARGV[4], ARGV[5]
local log, log_key, stream
local lost_now = '0'

local function text(number)
  return string.format('%.0f', number)
end

local function load(hash_key)
  local fields = {
    'epoch', 'top', 'id', 'state', 'owner', 'worker', 'cancel', 'server', 'met', 'earlier',
    'lease', 'ttl',
  }
  local values = redis.call('HMGET', hash_key, unpack(fields))
  log, log_key = {}, hash_key
  for index, field in ipairs(fields) do
    log[field] = values[index] or nil
  end
  log.top = tonumber(log.top)
  stream = log.id and (key .. ':s:' .. log.id) or (key .. ':s')
end

-- A server that was restarted or promoted may have lost the newest events, and clients may have
-- them. The epoch ends at the newest event that is left: positions up to there stay valid.
local function begin_epoch()
  local earlier = { log.epoch .. ':' .. text(log.top) }
  for one in string.gmatch(log.earlier or '', '[^,]+') do
    if #earlier < 8 then
      table.insert(earlier, one)
    end
  end
  log.epoch, log.earlier, log.server = candidate, table.concat(earlier, ','), server
  redis.call('HSET', log_key, 'epoch', log.epoch, 'earlier', log.earlier, 'server', server)
end

local function expire(ttl)
  redis.call('PEXPIRE', log_key, ttl)
  redis.call('PEXPIRE', stream, ttl)
  if not log.id then
    redis.call('PEXPIRE', key .. ':d', ttl)
  end
end

local function announce(first, count, status, without_id, frames)
  local head = { log.epoch, text(first), text(count), status, text(#without_id) }
  redis.call('PUBLISH', key, table.concat(head, ' ') .. '\n' .. without_id .. frames)
end

-- Append frames from ARGV[from] on.
local function append(from, history, token)
  local first = log.top + 1
  for index = from, #ARGV do
    log.top = log.top + 1
    if history then
      redis.call('XADD', stream, 'MAXLEN', history, text(log.top) .. '-0',
        'f', ARGV[index], 't', token)
    else
      redis.call('XADD', stream, text(log.top) .. '-0', 'f', ARGV[index])
    end
  end
  redis.call('HSET', log_key, 'top', text(log.top), 'server', server)
  if log.top >= first then
    announce(first, log.top - first + 1, '-', '', table.concat(ARGV, '', from))
  end
end

local function finish(status, frame, without_id)
  log.top, log.state = log.top + 1, status
  redis.call('XADD', stream, text(log.top) .. '-0', 'f', frame, 'w', without_id, 's', status)
  redis.call('HSET', log_key, 'top', text(log.top), 'state', status, 'server', server)
  redis.call('DEL', key .. ':l')
  redis.call('SREM', running_set, key)
  expire(log.ttl)
  announce(log.top, 1, status, without_id, frame)
end

local function renew()
  redis.call('SET', key .. ':l', log.owner, 'PX', log.lease)
  expire(log.ttl + log.lease)
end

-- End the run if its owner is dead.
local function reap()
  if log.state ~= 'running' or redis.call('EXISTS', key .. ':l') == 1 then
    return
  end
  if log.server ~= server and log.met ~= server then
    -- The lease may have expired while the server was away, and the owner may be alive.
    log.met = server
    redis.call('HSET', log_key, 'met', server)
    renew()
    return
  end
  if log.server ~= server then
    begin_epoch()
  end
  local last = redis.call('HMGET', log_key, 'lost', 'lost_without_id')
  finish('lost', last[1], last[2])
  lost_now = '1'
end

-- Why the owner may not write, if that is so.
local function fence(id, owner)
  if not log.epoch then
    return { 'missing' }
  elseif log.id ~= id or log.owner ~= owner then
    return { 'ended', 'lost' }
  elseif log.state ~= 'running' then
    return { 'ended', log.state }
  end
end

local function open_channel()
  if not log.epoch then
    -- The server may have evicted one of the keys.
    redis.call('DEL', stream, key .. ':d')
    log.epoch, log.top, log.server = candidate, 0, server
    redis.call('HSET', log_key, 'epoch', log.epoch, 'top', '0', 'server', server)
  elseif log.server ~= server then
    begin_epoch()
  end
end

local function offset_of(entry)
  return string.sub(entry[1], 1, -3)
end

local operations = {}

-- history, ttl, key of the publisher or '', token of this call, frames...
function operations.append()
  local history, ttl, dedupe, token = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
  open_channel()
  if dedupe ~= '' then
    local at = redis.call('ZSCORE', key .. ':d', dedupe)
    if at then
      return { log.epoch, text(tonumber(at)) }
    end
  end
  if ARGV[3] == '1' then
    for _, entry in ipairs(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', history)) do
      if entry[2][4] == token then
        return { log.epoch, offset_of(entry) }
      end
    end
  end
  append(10, history, token)
  if dedupe ~= '' then
    redis.call('ZADD', key .. ':d', text(log.top), dedupe)
    redis.call('ZREMRANGEBYRANK', key .. ':d', 0, -(history + 1))
  end
  expire(ttl)
  return { log.epoch, text(log.top) }
end

-- ttl, id of the run or '', epoch and offset to read after or '', how many entries
function operations.read()
  local ttl, id, epoch, offset, most = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
  if id == '' then
    open_channel()
  else
    if log.id ~= id then
      load(key .. ':o:' .. id)
    end
    if not log.epoch then
      return { '', '0', '', '', '-1', {}, lost_now }
    end
    reap()
  end
  if log.state ~= 'running' then
    expire(log.ttl or ttl)
  end
  local entries = {}
  if offset ~= '' then
    local known = epoch == log.epoch
    for one, last in string.gmatch(log.earlier or '', '([^,:]+):(%d+)') do
      known = known or (one == epoch and tonumber(offset) <= tonumber(last))
    end
    local from = known and text(tonumber(offset) + 1) or '0'
    entries = redis.call('XRANGE', stream, from, '+', 'COUNT', most)
  end
  return {
    log.epoch, text(log.top), log.state or '', log.earlier or '',
    text(redis.call('PTTL', key .. ':l')), entries, lost_now,
  }
end

-- owner, channel of its worker, mode, lease, ttl, last event if it is lost (two forms)
function operations.start()
  local owner, worker, mode, lease, ttl = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
  reap()
  if log.state == 'running' then
    if log.owner == owner then
      return { 'new', log.id, log.epoch, text(log.top), lost_now }
    elseif mode == 'reject' then
      return { 'exists' }
    elseif mode == 'attach' then
      return { 'running', log.id, log.epoch, text(log.top), lost_now }
    end
    operations.cancel()
    return { 'wait' }
  end
  if log.id then
    redis.call('RENAME', key, key .. ':o:' .. log.id)
  end
  log = { epoch = candidate, top = 0, id = candidate, owner = owner, lease = lease, ttl = ttl }
  log_key, stream = key, key .. ':s:' .. candidate
  redis.call('HSET', key, 'epoch', candidate, 'top', '0', 'id', candidate, 'state', 'running',
    'owner', owner, 'worker', worker, 'server', server, 'lease', lease, 'ttl', ttl,
    'lost', ARGV[11], 'lost_without_id', ARGV[12])
  redis.call('SADD', running_set, key)
  renew()
  return { 'new', log.id, log.epoch, '0', lost_now }
end

-- id, owner, offset of the first frame, frames...
function operations.write()
  local refused = fence(ARGV[6], ARGV[7])
  if refused then
    return refused
  end
  local first = tonumber(ARGV[8])
  if log.top < first - 1 then
    return { 'behind', text(log.top) }
  end
  append(9 + log.top - first + 1)
  renew()
  return { 'ok', text(log.top), log.cancel or '' }
end

-- id, owner, worker, lease, ttl, last event if it is lost (two forms), epoch, earlier, top: what
-- the server has lost
function operations.restore()
  local id, owner, epoch, earlier, top = ARGV[6], ARGV[7], ARGV[13], ARGV[14], ARGV[15]
  if log.epoch then
    local refused = fence(id, owner)
    if refused then
      return refused
    end
  else
    redis.call('DEL', key .. ':s:' .. id)
  end
  log = { epoch = epoch, top = tonumber(top), id = id, owner = owner, lease = ARGV[9],
    ttl = ARGV[10] }
  log_key, stream = key, key .. ':s:' .. id
  redis.call('HSET', key, 'epoch', epoch, 'earlier', earlier, 'top', top, 'id', id, 'state',
    'running', 'owner', owner, 'worker', ARGV[8], 'server', server, 'lease', ARGV[9], 'ttl',
    ARGV[10], 'lost', ARGV[11], 'lost_without_id', ARGV[12])
  redis.call('SADD', running_set, key)
  renew()
  return { 'ok', top, '' }
end

-- id, owner, offset, status, frame, frame for readers without ids
function operations.finish()
  local refused = fence(ARGV[6], ARGV[7])
  if refused then
    return refused
  end
  if log.top < tonumber(ARGV[8]) - 1 then
    return { 'behind', text(log.top) }
  end
  finish(ARGV[9], ARGV[10], ARGV[11])
  return { 'ok', text(log.top), '' }
end

function operations.cancel()
  reap()
  if log.state ~= 'running' then
    return { '0', lost_now }
  end
  redis.call('HSET', log_key, 'cancel', '1')
  redis.call('PUBLISH', log.worker, 'cancel ' .. log.id)
  return { '1', lost_now }
end

function operations.status()
  reap()
  return { log.state or '', log.id or '', log.epoch or '', text(log.top or 0), lost_now }
end

-- On the set of runs. worker, milliseconds until the next worker may do this
function operations.sweep()
  if redis.call('SET', key .. ':lock', ARGV[6], 'NX', 'PX', ARGV[7]) then
    return redis.call('SMEMBERS', key)
  end
  return {}
end

-- On the channel of a worker.
function operations.probe()
  redis.call('PUBLISH', key, 'probe')
  return {}
end

local operation = ARGV[1]
if operation ~= 'sweep' and operation ~= 'probe' then
  load(key)
end
return operations[operation]()
