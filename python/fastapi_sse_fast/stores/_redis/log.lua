-- The log of a channel or a run. Each operation is one atomic step.
--
-- KEYS[1]   the key of the log, `<prefix>{<name>}`. Derived keys:
--             <key>          hash: epoch, top, server, earlier; of runs also id, state, owner,
--                            worker, cancel, suspect, lost, lost_without_id, lease, ttl, finder
--             <key>:s        stream of a channel; its entries have the ids `<offset>-0`
--             <key>:s:<id>   stream of a run
--             <key>:d        sorted set of a channel: keys of publishers by offset
--             <key>:l        lease of a run; it expires unless the owner renews it
--             <key>:o:<id>   hash of a run that another one of the name has followed
-- ARGV[1]   the operation
-- ARGV[2]   which server process the caller is connected to: its run id
-- ARGV[3]   '1' if the operation may have been done already, without an answer
-- ARGV[4]   a token of this call, the same each time that it is repeated. It is the next epoch if
--           a log begins anew.
-- ARGV[5]   the set of all runs that are running. Derived keys, of all logs:
--             <set>:server   hash: process, since
--             <set>:lock     who looks for lost runs
-- ARGV[6..] arguments of the operation
--
-- No result depends on a clock: a lease that expires only means that its run may be ended.
--
-- A server without memory refuses the first write of a script if that needs memory, and then nothing
-- was done. What keeps a run or ends it begins with a write that needs none, and is always possible.

local key, token, running_set = KEYS[1], ARGV[4], ARGV[5]
-- Names the time since which the server has lost nothing, see `find_server`.
local server
local is_repeated = ARGV[3] == '1'
local log, log_key, stream
-- '1' if this call has found that the owner of the run is dead.
local lost_now = '0'

local FIELDS = {
  'epoch', 'top', 'id', 'state', 'owner', 'worker', 'cancel', 'server', 'suspect', 'earlier',
  'lease', 'ttl', 'finder',
}

-- What keeps runs or ends them, and so must be possible without memory.
local NEED_NO_MEMORY = {
  write = true, finish = true, abandon = true, cancel = true, status = true, probe = true,
  sweep = true, read = ARGV[7] ~= '',
}

local function text(number)
  return string.format('%.0f', number)
end

-- The data remember the process that they are in. If it is another one now, they may be older than
-- what clients have seen. The id of the process is not enough to know that for each log: after a
-- failover and a second one back, it is the same as before, but newer events may be lost. If this
-- expires, each log begins a new epoch, which does no harm.
local function find_server()
  local process, server_key = ARGV[2], running_set .. ':server'
  local known = redis.call('HMGET', server_key, 'process', 'since')
  server = known[2]
  if known[1] ~= process then
    server = token
    if NEED_NO_MEMORY[ARGV[1]] then
      redis.call('DEL', server_key)
    end
    redis.call('HSET', server_key, 'process', process, 'since', server)
    redis.call('PEXPIRE', server_key, 30 * 24 * 3600 * 1000)
  end
end

local function load(hash_key)
  local values = redis.call('HMGET', hash_key, unpack(FIELDS))
  log, log_key = {}, hash_key
  for index, field in ipairs(FIELDS) do
    log[field] = values[index] or nil
  end
  log.top = tonumber(log.top)
  stream = log.id and (key .. ':s:' .. log.id) or (key .. ':s')
  if is_repeated and log.finder == token then
    lost_now = '1'
  end
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
  log.epoch, log.earlier, log.server = token, table.concat(earlier, ','), server
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
  local head = { log.epoch, text(first), text(count), text(#without_id), status }
  redis.call('PUBLISH', key, table.concat(head, ' ') .. '\n' .. without_id .. frames)
end

-- Append frames from ARGV[from] on. A channel keeps `history` of them.
local function append(from, history)
  if from > #ARGV then
    return
  end
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
  redis.call('HSET', log_key, 'top', text(log.top))
  announce(first, log.top - first + 1, '-', '', table.concat(ARGV, '', from))
end

local function finish(status, frame, without_id)
  log.top, log.state = log.top + 1, status
  redis.call('SREM', running_set, key)
  redis.call('DEL', key .. ':l')
  redis.call('XADD', stream, text(log.top) .. '-0', 'f', frame, 'w', without_id, 's', status)
  redis.call('HSET', log_key, 'top', text(log.top), 'state', status, 'server', server)
  expire(log.ttl)
  announce(log.top, 1, status, without_id, frame)
end

local function finish_lost()
  local last = redis.call('HMGET', log_key, 'lost', 'lost_without_id')
  finish('lost', last[1], last[2])
end

local function renew(lease)
  expire(log.ttl + log.lease)
  redis.call('SET', key .. ':l', log.owner, 'PX', lease)
end

-- End the run if its owner is dead. The lease may also have expired while the server stood still,
-- or was away. So the owner first gets some more time, in which it answers if it is alive.
local function reap()
  if log.state ~= 'running' or redis.call('EXISTS', key .. ':l') == 1 then
    return
  end
  if log.suspect ~= server then
    local more = log.lease
    if log.server == server then
      more = math.min(500, math.ceil(log.lease / 3))
    end
    renew(more)
    log.suspect = server
    redis.call('HSET', log_key, 'suspect', server)
    return
  end
  if log.server ~= server then
    begin_epoch()
  end
  finish_lost()
  redis.call('HSET', log_key, 'finder', token)
  lost_now = '1'
end

-- Whether it is known soon whether the owner is dead.
local function is_suspect()
  return log.state == 'running' and log.suspect == server and log.server == server
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
    log.epoch, log.top, log.server = token, 0, server
    -- Before any other write, because a server without memory refuses only the first one.
    redis.call('HSET', log_key, 'epoch', log.epoch, 'top', '0', 'server', server)
    -- The server may have evicted one of the keys.
    redis.call('DEL', stream, key .. ':d')
  elseif log.server ~= server then
    begin_epoch()
  end
end

local function offset_of(entry)
  return string.sub(entry[1], 1, -3)
end

-- The offset of the last event that this call has appended before, if it has.
local function offset_before(history)
  local last, left = '+', tonumber(history)
  while left > 0 do
    local entries = redis.call('XREVRANGE', stream, last, '-', 'COUNT', 16)
    for _, entry in ipairs(entries) do
      if entry[2][4] == token then
        return offset_of(entry)
      end
    end
    if #entries < 16 then
      return
    end
    last, left = '(' .. entries[16][1], left - 16
  end
end

local function entries_after(offset, most, most_bytes)
  local entries, bytes, count, from = {}, 0, 8, '(' .. offset
  while #entries < most and bytes < most_bytes do
    local more = redis.call('XRANGE', stream, from, '+', 'COUNT', math.min(count, most - #entries))
    for _, entry in ipairs(more) do
      table.insert(entries, entry)
      bytes = bytes + #entry[2][2]
    end
    if #more < count then
      break
    end
    from, count = '(' .. more[#more][1], math.min(2 * count, 256)
  end
  return entries
end

local operations = {}

-- history, ttl, key of the publisher or '', frames...
function operations.append()
  local history, ttl, dedupe = ARGV[6], ARGV[7], ARGV[8]
  open_channel()
  local at = dedupe ~= '' and redis.call('ZSCORE', key .. ':d', dedupe)
  if at then
    return { log.epoch, text(tonumber(at)) }
  end
  at = is_repeated and offset_before(history)
  if at then
    return { log.epoch, at }
  end
  append(9, history)
  if dedupe ~= '' then
    redis.call('ZADD', key .. ':d', text(log.top), dedupe)
    redis.call('ZREMRANGEBYRANK', key .. ':d', 0, -(history + 1))
  end
  expire(ttl)
  return { log.epoch, text(log.top) }
end

-- ttl, id of the run or '', epoch and offset to read after or '', how many events, how many bytes
function operations.read()
  local ttl, id, epoch, offset = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
  if id == '' then
    open_channel()
  else
    if log.id ~= id then
      load(key .. ':o:' .. id)
    end
    if not log.epoch then
      return { '', '0', '0', '', '1', '', '-1', {}, lost_now }
    end
    reap()
  end
  if log.state ~= 'running' then
    expire(log.ttl or ttl)
  end
  local entries = {}
  if offset ~= '' then
    local is_known = epoch == log.epoch
    for one, last in string.gmatch(log.earlier or '', '([^,:]+):(%d+)') do
      is_known = is_known or (one == epoch and tonumber(offset) <= tonumber(last))
    end
    entries = entries_after(is_known and offset or '0', tonumber(ARGV[10]), tonumber(ARGV[11]))
  end
  local is_settled = log.state ~= 'running' or log.server == server
  return {
    log.epoch, text(log.top), text(redis.call('XLEN', stream)), log.state or '',
    is_settled and '1' or '0', log.earlier or '', text(redis.call('PTTL', key .. ':l')), entries,
    lost_now,
  }
end

-- owner, channel of its worker, mode, lease, ttl, last event if it is lost (two forms)
function operations.start()
  local owner, worker, mode, lease, ttl = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
  reap()
  if log.state == 'running' then
    if log.owner == owner then
      return { 'new', log.id, log.epoch, text(log.top), lost_now }
    elseif mode == 'replace' then
      operations.cancel()
      return { 'wait' }
    elseif is_suspect() then
      return { 'wait' }
    elseif mode == 'attach' then
      return { 'running', log.id, log.epoch, text(log.top), lost_now }
    end
    return { 'exists' }
  end
  -- This is first, because it needs memory.
  redis.call('SADD', running_set, key)
  if log.id then
    redis.call('RENAME', key, key .. ':o:' .. log.id)
  end
  log = { epoch = token, top = 0, id = token, owner = owner, lease = lease, ttl = ttl }
  log_key, stream = key, key .. ':s:' .. token
  redis.call('HSET', key, 'epoch', token, 'top', '0', 'id', token, 'state', 'running',
    'owner', owner, 'worker', worker, 'server', server, 'lease', lease, 'ttl', ttl,
    'lost', ARGV[11], 'lost_without_id', ARGV[12])
  if lost_now == '1' then
    redis.call('HSET', key, 'finder', token)
  end
  renew(log.lease)
  return { 'new', log.id, log.epoch, '0', lost_now }
end

-- owner: nobody has heard that the run was started
function operations.abandon()
  if log.state == 'running' and log.owner == ARGV[6] then
    finish_lost()
  end
  return {}
end

-- id, owner, top that the server has said to have, offset of the first frame, frames...
function operations.write()
  local refused = fence(ARGV[6], ARGV[7])
  if refused then
    return refused
  end
  local known, first = tonumber(ARGV[8]), tonumber(ARGV[9])
  if log.top < first - 1 then
    return { 'behind', text(log.top) }
  end
  append(10 + log.top - (first - 1))
  if log.server ~= server and log.top >= known then
    redis.call('HSET', log_key, 'server', server)
  end
  renew(log.lease)
  if log.suspect then
    redis.call('HDEL', log_key, 'suspect')
  end
  return { 'ok', text(log.top), log.cancel or '' }
end

-- id, owner, worker, lease, ttl, last event if it is lost (two forms), top: begin again behind the
-- events that neither the server nor the owner has any more
function operations.restore()
  local id, owner, top = ARGV[6], ARGV[7], ARGV[13]
  local refused = log.epoch and fence(id, owner)
  if refused then
    return refused
  end
  log = { id = id, owner = owner, lease = ARGV[9], ttl = ARGV[10] }
  log_key, stream = key, key .. ':s:' .. id
  redis.call('SADD', running_set, key)
  redis.call('DEL', stream)
  redis.call('HSET', key, 'epoch', id, 'top', top, 'id', id, 'state', 'running', 'owner', owner,
    'worker', ARGV[8], 'server', '', 'lease', ARGV[9], 'ttl', ARGV[10], 'lost', ARGV[11],
    'lost_without_id', ARGV[12])
  renew(log.lease)
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
  return { 'ended', ARGV[9] }
end

function operations.cancel()
  reap()
  if log.state ~= 'running' then
    return { '0', lost_now }
  end
  expire(log.ttl + log.lease)
  redis.call('HSET', log_key, 'cancel', '1')
  redis.call('PUBLISH', log.worker, 'cancel ' .. log.id)
  return { is_suspect() and 'wait' or '1', lost_now }
end

function operations.status()
  reap()
  if not log.epoch then
    redis.call('SREM', running_set, key)
  end
  local status = is_suspect() and 'wait' or log.state or ''
  return { status, log.id or '', log.epoch or '', text(log.top or 0), lost_now }
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
find_server()
if operation ~= 'sweep' and operation ~= 'probe' then
  load(key)
end
return operations[operation]()
