-- The session work in nginx and Lua: a session by its cookie from Redis, its expiry slid, its fields as headers, what a
-- client sent under their names removed, and changes written with compare-and-set.
local redis = require "nginx.redis"
local lrucache = require "resty.lrucache"

local _M = {}
local settings, cache

local CAS = "if redis.call('HGET',KEYS[1],'ver')~=ARGV[1] then return 0 end redis.call('HSET',KEYS[1],ARGV[2],ARGV[3]) redis.call('HINCRBY',KEYS[1],'ver',1) redis.call('EXPIRE',KEYS[1],1800) return 1"
local CAS_SHA = (ngx.sha1_bin(CAS):gsub(".", function(c) return string.format("%02x", c:byte()) end))

function _M.setup(given)
    settings = given
    if given.cache then cache = lrucache.new(20000) end
end

local function connect()
    local link = redis:new()
    link:set_timeout(1000)
    local ok, err = link:connect("127.0.0.1", settings.redis_port)
    if not ok then return nil, err end
    return link
end

local function load_session(id)
    if cache then
        local session = cache:get(id)
        if session then return session end
    end
    local link, err = connect()
    if not link then
        ngx.log(ngx.ERR, "redis: ", err)
        return ngx.exit(503)
    end
    local key = "session:" .. id
    link:init_pipeline(2)
    link:hgetall(key)
    link:expire(key, 1800)
    local answers, failed = link:commit_pipeline()
    if not answers then
        ngx.log(ngx.ERR, "redis: ", failed)
        return ngx.exit(503)
    end
    link:set_keepalive(60000, 256)
    local flat = answers[1]
    if type(flat) ~= "table" or #flat == 0 then return nil end
    local session = { names = {}, values = {}, version = "0" }
    for i = 1, #flat, 2 do
        session.names[#session.names + 1] = "x-session-" .. flat[i]
        session.values[#session.values + 1] = flat[i + 1]
        if flat[i] == "ver" then session.version = flat[i + 1] end
    end
    -- Blind: whatever others write, it is served for this long.
    if cache then cache:set(id, session, 20) end
    return session
end

function _M.access()
    local id = ngx.var.cookie_sid
    if not id or not id:find("^%w+$") then return ngx.exit(401) end
    local request = ngx.req
    for name in pairs(request.get_headers(100)) do
        if name:sub(1, 10) == "x-session-" then request.clear_header(name) end
    end
    local session = load_session(id)
    if not session then return ngx.exit(401) end
    for i = 1, #session.names do
        request.set_header(session.names[i], session.values[i])
    end
    ngx.ctx.id = id
    ngx.ctx.version = session.version
end

local function write_back(premature, id, version, change)
    local field, value = change:match("^([^=]+)=(.*)$")
    if not field then return end
    local link = connect()
    if not link then return end
    local done, err = link:evalsha(CAS_SHA, 1, "session:" .. id, version, field, value)
    if not done and err and err:find("NOSCRIPT", 1, true) then
        link:eval(CAS, 1, "session:" .. id, version, field, value)
    end
    link:set_keepalive(60000, 256)
end

function _M.header_filter()
    local change = ngx.header["x-session-set"]
    if not change then return end
    ngx.header["x-session-set"] = nil
    local id = ngx.ctx.id
    if id then
        if cache then cache:delete(id) end
        -- A header filter may not wait: the write lands after the response has gone out.
        ngx.timer.at(0, write_back, id, ngx.ctx.version, change)
    end
end

return _M
