-- Slides a living session's idle expiry to the caller's time, never back; its trail's along with it.
--
-- KEYS: the session's hash, its trail. ARGV: birth, time, how long a trail outlives its session.
local h = redis.call('HMGET', KEYS[1], '@birth', '@revoked_at', '@last_active', '@idle', '@touch_interval', '@ends_at')
if h[1] ~= ARGV[1] or h[2] then return 0 end
local now = tonumber(ARGV[2])
local active, idle, interval, ends = tonumber(h[3]), tonumber(h[4]), tonumber(h[5]), tonumber(h[6])
if not (active and idle and interval and ends) then return -1 end
if now >= math.min(active + idle + interval, ends) then return 0 end
if now > active then
  local left = math.max(1, math.min(math.min(now + idle + interval, ends) - now, 1e14))
  redis.call('HSET', KEYS[1], '@last_active', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', math.min(left + tonumber(ARGV[3]), 1e14)))
end
return 1
