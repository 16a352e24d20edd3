-- Tries what the other scripts do, on keys that no session can have, and names what the user may not do.
--
-- KEYS: a hash, a stream, a sorted set, another stream.
local tries = {
  {'HSET', KEYS[1], 'probe', '1'}, {'HGETALL', KEYS[1]}, {'HMGET', KEYS[1], 'probe'}, {'HDEL', KEYS[1], 'probe'},
  {'XADD', KEYS[2], '*', 'probe', '1'}, {'XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1},
  {'ZADD', KEYS[3], 1, 'probe'}, {'ZRANGE', KEYS[3], -1, -1}, {'ZREMRANGEBYSCORE', KEYS[3], '-inf', 0},
  {'XADD', KEYS[4], '*', 'probe', '1'}, {'XRANGE', KEYS[4], '-', '+', 'COUNT', 1}, {'XDEL', KEYS[4], '1-1'},
  {'PTTL', KEYS[2]}, {'PEXPIRE', KEYS[2], 1000}, {'DEL', KEYS[1]}, {'DEL', KEYS[2]}, {'DEL', KEYS[3]},
  {'DEL', KEYS[4]},
}
local refused = {}
for _, try in ipairs(tries) do
  local reply = redis.pcall(unpack(try))
  local said = type(reply) == 'table' and reply.err
  if said and (string.find(said, 'NOPERM', 1, true) or string.find(said, 'permission', 1, true)
      or string.find(said, 'user executing the script', 1, true)) then
    refused[#refused + 1] = try[1] .. ' on ' .. try[2]
  end
end
return refused
