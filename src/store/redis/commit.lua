-- Decides one commit and writes it with its audit record, all or nothing: the rules of `store::apply`, in order.
--
-- KEYS: the session's hash, its trail. ARGV: the commit as JSON; the key of what outlives a session that came after a
-- revocation: in the same slot, but mostly not there, and while a slot moves a cluster refuses scripts with such keys;
-- the record, for the trail to complete; `again` after them, where the same may have been asked before.
-- Time is the caller's, never the server's.
-- Numbers are doubles here, exact for every time and count there will be; what is only kept stays text.
local session, trail, past, draft = KEYS[1], KEYS[2], ARGV[2], ARGV[3]
local c = cjson.decode(ARGV[1])

local flat = redis.call('HGETALL', session)
local h = {}
for i = 1, #flat, 2 do h[flat[i]] = flat[i + 1] end

local function text(number) return string.format('%.0f', number) end

local function number(name)
  local digits = h[name] and string.match(h[name], '^%d+$')
  return digits and tonumber(digits)
end

local function numbers(names)
  for _, name in ipairs(names) do
    if not number(name) then return false end
  end
  return true
end

-- What stands here, by the caller's clock: what is over counts as absent.
local living, revoked = false, false
if #flat > 0 then
  if not h['@birth'] or not numbers({'@seq'}) then return {'damaged'} end
  if h['@revoked_at'] then
    if not numbers({'@revoked_at', '@until'}) then return {'damaged'} end
    revoked = c.now < number('@until')
  else
    local proven = h['@secret'] or (h['@issuer'] and h['@subject'])
    local whole = {'@schema', '@revision', '@created_at', '@last_active', '@ends_at', '@idle', '@touch_interval'}
    if not proven or not numbers(whole) then return {'damaged'} end
    local idle = number('@last_active') + number('@idle') + number('@touch_interval')
    living = c.now < math.min(idle, number('@ends_at'))
  end
end

-- The revocation that stands here: a tombstone's, or what a session that is over has left of one before it.
local revoked_at, stands_to, yields
if revoked then
  revoked_at, stands_to, yields = h['@revoked_at'], h['@until'], h['@yields']
elseif not living then
  local left = redis.call('HMGET', past, 'revoked_at', 'until')
  revoked_at, stands_to, yields = left[1], left[2], true
  revoked = revoked_at and stands_to and c.now < tonumber(stands_to)
  if revoked then h = {} end
end

local user = living and h['@user'] or ''

-- A commit that was applied is answered as it was then, before any check. Mostly it was not, which one search tells.
local recent = h['@recent'] or ''
if (living or revoked) and string.find(recent, c.id, 1, true) then
  for id, revision, seq in string.gmatch(recent, '(%S+):(%d+):(%d+)') do
    if id == c.id then return {'again', revision, seq, h['@birth'], user, user, h['@ends_at'] or ''} end
  end
end
-- One whose answer was lost may be further back than the session remembers: many others may have come since.
if ARGV[4] == 'again' then
  local id = '"commit":"' .. c.id .. '"'
  for _, entry in ipairs(redis.call('XREVRANGE', trail, '+', '-', 'COUNT', c.look_back)) do
    local record = entry[2][2]
    if string.find(record, id, 1, true) then
      local seq, revision = string.match(record, '"seq":(%d+),"revision":(%d+)}$')
      if seq then return {'again', revision, seq, h['@birth'] or '', user, user, h['@ends_at'] or ''} end
    end
  end
end

local after
if c.effect == 'create' then
  if living then return {'exists'} end
  if revoked then
    local later = c.login and c.login > math.floor(tonumber(revoked_at) / 1000)
    if not (yields and later) then return {'revoked'} end
    after = {revoked_at, stands_to}
  end
else
  if revoked then return {'revoked'} end
  if not living then return {'not-found'} end
  if c.birth and c.birth ~= h['@birth'] then return {'conflict', 'birth'} end
end

local revision, seq = c.revision, c.seq
local writes_fields, size = false, nil
local begins = c.effect == 'create' or c.effect == 'replace'
if not begins then
  revision, seq = number('@revision'), number('@seq') + 1
end

if c.effect == 'change' then
  -- Claims of a token that is not younger than one before are not applied.
  local claims_at = c.claims_at and h['@issuer'] and c.claims_at
  if claims_at and claims_at <= (number('@claims_at') or 0) then return {'unchanged', text(revision)} end
  -- `If-Match` names the revision before the exchange's own head was committed.
  local only_own_since = c.own == revision and revision - 1 == c.if_match
  if c.if_match and c.if_match ~= revision and not only_own_since then return {'conflict', 'revision'} end
  local function by_another(path)
    local at = number('@revision:' .. path) or 0
    return at > c.base and at ~= c.own
  end
  for _, field in ipairs(c.set) do
    if by_another(field[1]) then return {'conflict', 'field', field[1]} end
  end
  for _, path in ipairs(c.unset) do
    if by_another(path) then return {'conflict', 'field', path} end
  end
  if c.rotate and c.rotate.current ~= h['@secret'] then return {'secret-changed'} end
  writes_fields = #c.set + #c.unset > 0
  local raises = c.schema and c.schema > number('@schema')
  local moves = c.user and c.user ~= user
  if not (writes_fields or raises or moves or c.rotate or c.stands_until) then
    if claims_at then redis.call('HSET', session, '@claims_at', text(claims_at)) end
    return {'unchanged', text(revision)}
  end
  if c.growth then
    local g = c.growth
    size = (revision ~= g.at and number('@size') or g.from) + g.to - g.from
    if g.to > g.from and size > g.most then return {'too-large'} end
  end
  if writes_fields then revision = revision + 1 end
elseif c.effect == 'reseal' then
  for _, value in ipairs(c.values) do
    if h[value[1]] ~= value[2] then return {'conflict', 'field', value[1]} end
  end
end

-- The record first: it is what the server may refuse for want of memory, and then nothing is written at all.
local newest = redis.call('XREVRANGE', trail, '+', '-', 'COUNT', 1)
local position = 1
if newest[1] then
  position = tonumber(string.match(newest[1][1], '^%d+')) + 1
else
  redis.call('DEL', trail)
end
local function append(begun, seq, revision)
  local record = begun .. ',"seq":' .. text(seq) .. ',"revision":' .. text(revision) .. '}'
  redis.call('XADD', trail, 'MAXLEN', '=', c.keep, text(position) .. '-0', 'record', record)
  position = position + 1
end
local was_revision, was_seq, was_birth = number('@revision'), number('@seq'), h['@birth']
if c.effect == 'replace' then
  was_seq = was_seq + 1
  append(c.ended, was_seq, was_revision)
  after = h['@after'] and {h['@after'], h['@after_until']}
end
append(draft, seq, revision)

if begins then
  redis.call('DEL', session)
  for i = 1, #c.hash, 2 do redis.call('HSET', session, c.hash[i], c.hash[i + 1]) end
  if after then
    redis.call('HSET', session, '@after', after[1], '@after_until', after[2])
    redis.call('HSET', past, 'revoked_at', after[1], 'until', after[2])
  end
end
-- The last commits, oldest first: with this one as many as are remembered.
local before = c.effect ~= 'create' and recent or ''
local _, count = string.gsub(before, '%S+', '')
for _ = c.remember, count do before = string.match(before, '^%s*%S+%s+(.*)$') or '' end
recent = before .. (before ~= '' and ' ' or '') .. c.id .. ':' .. text(revision) .. ':' .. text(seq)

-- Sets how long a key stands from now on; by the server's own clock, but only the length counts.
local function stands(key, millis)
  redis.call('PEXPIRE', key, text(math.max(1, math.min(millis, 1e14))))
end

if c.stands_until then
  redis.call('DEL', session)
  redis.call('HSET', session, '@birth', h['@birth'], '@revoked_at', text(c.now), '@until', c.stands_until,
    '@seq', text(seq), '@recent', recent)
  if h['@yields'] then redis.call('HSET', session, '@yields', '1') end
  stands(session, tonumber(c.stands_until) - c.now)
  stands(trail, c.retain)
  return {'done', text(revision), text(seq), h['@birth'], user, '', h['@ends_at']}
end

local now_user = user
if begins then
  now_user = c.user
  if after then stands(past, tonumber(after[2]) - c.now) end
elseif c.effect == 'change' then
  for _, path in ipairs(c.unset) do
    redis.call('HDEL', session, path)
    redis.call('HSET', session, '@revision:' .. path, text(revision))
  end
  for _, field in ipairs(c.set) do
    redis.call('HSET', session, field[1], field[2], '@revision:' .. field[1], text(revision))
  end
  if c.schema and c.schema > number('@schema') then redis.call('HSET', session, '@schema', text(c.schema)) end
  if c.claims_at and h['@issuer'] then redis.call('HSET', session, '@claims_at', text(c.claims_at)) end
  if c.user then
    now_user = c.user
    if c.user == '' then redis.call('HDEL', session, '@user') else redis.call('HSET', session, '@user', c.user) end
  end
  if c.rotate then
    redis.call('HSET', session, '@secret', c.rotate.next, '@previous', c.rotate.current,
      '@previous_until', c.rotate.grace_until)
  end
elseif c.effect == 'reseal' then
  for _, value in ipairs(c.values) do redis.call('HSET', session, value[1], value[3]) end
end
redis.call('HSET', session, '@revision', text(revision), '@seq', text(seq), '@recent', recent)
if size then
  redis.call('HSET', session, '@size', text(math.max(0, size)))
elseif writes_fields then
  redis.call('HDEL', session, '@size')
end

if begins then
  for i = 1, #c.hash, 2 do h[c.hash[i]] = c.hash[i + 1] end
end
local dead_at = math.min(number('@last_active') + number('@idle') + number('@touch_interval'), number('@ends_at'))
stands(session, dead_at - c.now)
stands(trail, dead_at - c.now + c.retain)
if c.effect == 'replace' then
  return {'replaced', text(seq), text(was_revision), text(was_seq), was_birth, user, now_user, h['@ends_at']}
end
-- Read last, so that the server tells the caller's connection of what others do to it from here on.
local left = redis.call('HMGET', session, '@last_active', '@claims_at')
-- The commit before this one names all that came before: numbers alone are counted again after a failover.
-- Looked for from the end: to try every place of a long text takes as long as all the rest of a commit.
local last = string.match(before, '.*%s([^%s:]+):') or string.match(before, '^([^%s:]+):') or ''
return {'done', text(revision), text(seq), h['@birth'], user, now_user, h['@ends_at'], left[1], left[2] or '', last}
