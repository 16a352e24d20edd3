-- Takes one of a quota, if there is one (GCRA): 0, or how many microseconds it takes until there is.
--
-- KEYS: the moment at which all of the quota would be free. ARGV: how long until one comes back, in microseconds; how
-- many there are. Time is the server's: the clocks of sidecars differ by more than that.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local period, most = tonumber(ARGV[1]), tonumber(ARGV[1]) * tonumber(ARGV[2])
-- Never further away than all of it, whatever the quota or the clock was before.
local free = math.max(now, math.min(tonumber(redis.call('GET', KEYS[1])) or now, now + most))
local wait = free + period - most - now
-- Numbers this large are exact to a quarter of a microsecond.
if wait > 1 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.2f', free + period), 'PX', math.ceil((free + period - now) / 1000))
return 0
