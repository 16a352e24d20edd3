-- Lists a session under its user, and forgets sessions that are past their absolute expiry.
--
-- KEYS: the user's sorted set. ARGV: handle, absolute expiry, the caller's time.
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] then
  local left = math.max(1, math.min(tonumber(last[2]) - tonumber(ARGV[3]), 1e14))
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
end
return 1
