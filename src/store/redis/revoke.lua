-- Adds to the feed of revocations, and takes away a few of the oldest that have ended.
--
-- KEYS: the feed. ARGV: the revocation as JSON, when it may be forgotten, the caller's time.
local now, ends = tonumber(ARGV[3]), tonumber(ARGV[2])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 16)) do
  local fields = entry[2]
  for i = 1, #fields, 2 do
    local over = fields[i] == 'until' and tonumber(fields[i + 1])
    if over and over <= now then redis.call('XDEL', KEYS[1], entry[1]) end
  end
end
redis.call('XADD', KEYS[1], '*', 'revocation', ARGV[1], 'until', ARGV[2])
local left = math.max(1, math.min(ends - now, 1e14))
if redis.call('PTTL', KEYS[1]) < left then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left)) end
return 1
