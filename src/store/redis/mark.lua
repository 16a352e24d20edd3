-- Sets a key's time to live to what it is: a write that changes nothing, for WAIT to wait for.
--
-- KEYS: what was written.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end
return 1
