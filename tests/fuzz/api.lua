--- Random calls of attune's Lua functions; started by tests/fuzz/api: api.lua FOLDER CALLS SEED.
--
-- The functions are found in the module table and in the metatables of handles, so that new ones
-- are called too. `valid` has right arguments for those it knows; others get random values.
-- Arguments are then spoiled: absurd sizes, wrong types, closed handles, metatables, options that
-- are missing or unknown. Finalizers close handles and change arguments while a call runs, score
-- functions do so while they are traced, and half of the calls run in a coroutine. A refusal must
-- name its argument, and must not name a line of the library.
local folder, calls, seed = arg[1], tonumber(arg[2]), tonumber(arg[3])
local attune = require "attune"

math.randomseed(seed)
local random = math.random
local MEMORY = 8 << 20
local function reset()
  attune._fail_at(0)
  attune.memory {limit = MEMORY}
  attune.threads(2)
end

local function chance(n) return random(n) == 1 end
local function one(list) return list[random(#list)] end

-- ---- values ---------------------------------------------------------------------------------

-- Handles of earlier calls, some of them closed. A new one takes a random slot.
local pool = {tensor = {}, cache = {}, position = {}, state = {}, program = {}, map = {}}
local POOLED = 24
local function keep(kind, value)
  local list = pool[kind]
  list[#list < POOLED and #list + 1 or random(POOLED)] = value
  return value
end

local dtypes = {"f32", "f64", "bf16", "f16", "i8", "i32", "i64"}
local sizes = {1, 1, 2, 3, 4, 8, 16, 17, 64, 65}
local function tensor(shape, dtype)
  return keep("tensor", attune.randn(shape, {seed = random(9), dtype = dtype or "f32"}))
end

local numbers = {
  0, -1, 1, 2, 3, 0.5, -0.0, 1e300, -1e300, 1e-320, 0 / 0, 1 / 0, -1 / 0, 255, 65537, 1 << 20,
  1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 53, 1 << 61, 1 << 62, (1 << 62) + 1,
  math.maxinteger, math.mininteger, 3.0, 2.0 ^ 62, 2.0 ^ 63,
}
local texts = {
  "", "f32", "f32\0", "rope", "q", "tiled", "half", "yarn", "elu", "1, 2", "causal", "a\0b", "%s%n",
  ("x"):rep(300), "\xff\xfe", "\27[31m", folder .. "/file", folder, "/dev/null", "/dev/full",
  folder .. "/missing/file",
}

local mischief, scores, masks -- below

local function meta_table(t)
  local meta = {}
  for _, event in ipairs {
    "__index", "__len", "__pairs", "__close", "__gc", "__eq", "__call", "__tostring", "__name",
    "__newindex", "__metatable", "__add", "__lt", "__concat", "__mode",
  } do
    if chance(5) then
      meta[event] = event == "__name" and one {"traced value", "attune.tensor", 7}
        or event == "__mode" and "kv"
        or function() mischief() return random(3) end
    end
  end
  return setmetatable(t, meta)
end

local any
local function any_table(depth)
  local t = {}
  for _ = 1, random(0, 4) do t[#t + 1] = any(depth + 1) end
  if chance(3) then t[one {"causal", "dtype", "shape", "seed", 1.5, true}] = any(depth + 1) end
  return chance(4) and meta_table(t) or t
end

function any(depth)
  depth = depth or 0
  local n = random(12)
  if n <= 3 then return one(numbers) end
  if n <= 4 then return one(texts) end
  if n <= 5 then return nil end
  if n <= 6 then return chance(2) end
  if n <= 7 then return one {print, one(scores), one(masks), coroutine.create(print), io.stdout} end
  if n <= 9 and depth < 3 then return any_table(depth) end
  return one(pool[one {"tensor", "tensor", "cache", "position", "state", "program", "map"}])
end

-- What finalizers, metamethods and traced functions do to the call that runs. `current` holds its
-- arguments.
local current, busy = {n = 0}, 0

-- A program or a block map. Their fields are for reading.
local function is_object(t)
  local meta = debug.getmetatable(t)
  return meta and (meta == getmetatable(pool.map[1]) or meta == getmetatable(pool.program[1]))
end

local function spoil_table(t)
  if is_object(t) then return end
  if chance(3) then
    for i = 1, random(40) do rawset(t, i, random(4)) end
  elseif chance(2) then
    local key = next(t)
    if key ~= nil then rawset(t, key, nil) end
  else
    local key = next(t)
    if key ~= nil then rawset(t, key, any()) end
  end
end

local function close(handle)
  if type(handle) == "userdata" and handle ~= io.stdout then
    pcall(getmetatable(handle).__close, handle)
  end
end

function mischief()
  if busy > 2 then return end
  busy = busy + 1
  local n = random(8)
  if n <= 2 then
    close(one(pool[one {"tensor", "cache", "position", "state"}]))
  elseif n <= 4 then
    local x = current[random(math.max(current.n, 1))]
    if type(x) == "table" and not is_object(x) and chance(2) then x = select(2, next(x)) or x end
    if type(x) == "table" then spoil_table(x) else close(x) end
  elseif n == 5 then
    collectgarbage(one {"collect", "step"})
  elseif n == 6 then
    pcall(attune.attention, one(pool.tensor), one(pool.tensor), one(pool.tensor), {causal = true})
  elseif n == 7 then
    pcall(attune.block_map, one(masks), {queries = random(200), heads = random(2)})
  else
    pcall(attune.zeros, {one(sizes), "x"})
  end
  busy = busy - 1
end

local function garbage(n)
  for _ = 1, n do setmetatable({}, {__gc = mischief}) end
end

local bias
scores = {
  function(s) return s end,
  function(s, at) return s - (at.i - at.j):abs() * 0.5 end,
  function(s, at) return s + bias[at.h] end,
  function(s, at) return s + bias[(at.i - at.j):max(0):min(#bias - 1) + 1] end,
  function(s) mischief() return s end,
  function(s, at)
    garbage(3)
    collectgarbage "step"
    return s * at.kv
  end,
  function(s) coroutine.yield() return s end,
  function(s)
    local handle <close> = one(pool.tensor)
    return s + (handle and 1 or 0)
  end,
  function(s)
    pcall(attune.attention, one(pool.tensor), one(pool.tensor), one(pool.tensor), current[4])
    return s:tanh()
  end,
  function() error(one {"mischief: text", {}, 7, setmetatable({}, {__tostring = mischief})}) end,
  function(s)
    for _ = 1, random(300) do s = s * 1.01 + 0.1 end
    return s
  end,
  function() return any() end,
  function(s, at)
    local x = any()
    return s + (type(x) == "number" and x or 1) * at.b
  end,
  function(s, at)
    for i = 1, random(20) do s = s + (pool.tensor[i] and #pool.tensor[i].shape or 1) end
    return s + pool.tensor[1][at.j]
  end,
}
masks = {
  function(at) return at.i:ge(at.j) end,
  function(at) return (at.i - at.j):abs():le(random(64)) & ~at.j:eq(2) end,
  function(at)
    mischief()
    return at.j:ne(one(numbers))
  end,
  function(at) return pool.tensor[1][at.j]:gt(0) end,
  function(at) coroutine.yield(at) return at.i:lt(3) end,
  function() return any() end,
  function(at) return (at.i % random(0, 3)):eq(one(numbers) // 1) end,
  attune.masks.causal(),
}

-- ---- right arguments ------------------------------------------------------------------------

local function dims()
  local kv_heads, head_dim = random(2), one {2, 4, 16, 18, 64}
  return {
    b = random(2), hk = kv_heads, hq = kv_heads * random(3), sq = one(sizes), d = head_dim,
    sk = one(sizes), dv = one {head_dim, 8},
  }
end

local function position_options(name, n)
  if name == "rope" or name == "xpos" or name == "rope2d" then
    local o = {head_dim = n.d, base = chance(2) and 500 or nil}
    if name == "rope" and chance(2) then
      local half = {}
      for i = 1, n.d // 2 do half[i] = 1 + i end
      o.scaling = one {
        {type = "linear", factor = 2}, {type = "ntk", factor = 4},
        {type = "dynamic", factor = 2, original = 8},
        {type = "yarn", factor = 4, original = 16, truncate = false},
        {type = "longrope", factor = 2, original = 8, short = half, long = half},
        {type = "llama3", factor = 8, original = 32},
      }
    end
    return o
  end
  if name == "alibi" then return {heads = n.hq} end
  if name == "t5" then return {heads = n.hq, seed = 1} end
  if name == "learned" then return {d_model = n.d, max_positions = 70, seed = 1} end
  if name == "sinusoidal" then return {d_model = n.d} end
  return nil
end

local encodings = {"none", "rope", "learned", "sinusoidal", "rope2d", "xpos", "alibi", "t5"}
local function position(n, name)
  name = name or one(encodings)
  return keep("position", attune.position(name, position_options(name, n)))
end

local function documents(n)
  local list, left = {}, n
  while left > 0 do
    local size = random(left)
    list[#list + 1] = size
    left = left - size
  end
  return list
end

local function options(n, for_cache)
  local o = {}
  if chance(3) then o.window = chance(2) and {random(9), random(9)} or random(70) end
  if chance(4) then o.scale = 0.3 end
  if chance(4) then o.softcap = 20.0 end
  if chance(4) then o.sinks = tensor {n.hq} end
  if chance(2) then
    bias = tensor {math.max(n.hq, 4)}
    o.score = chance(2) and one(scores) or position(n, one {"alibi", "t5"}).score
  end
  if chance(3) then o.mask = one(masks) end
  if chance(3) then o.rotate = position(n, one {"rope", "xpos", "none"}) end
  if chance(5) then o.engine = one {"reference", "blis", "tiled", "decode"} end
  if chance(5) then
    o.summaries = {one {"entropy", "distance", "sinks"}, chance(2) and "columns" or nil}
  end
  if for_cache then return chance(5) and nil or o end
  if chance(2) then o.causal = chance(2) end
  if chance(4) then o.lengths = documents(n.sk) end
  if o.rotate and chance(2) then
    o.positions = {}
    for i = 1, n.sk do o.positions[i] = i + random(3) end
  end
  return chance(5) and nil or o
end

local function qkv(n)
  local dtype = one {"f32", "f32", "f64", "bf16", "f16"}
  return tensor({n.b, n.hq, n.sq, n.d}, dtype), tensor({n.b, n.hk, n.sk, n.d}, dtype),
    tensor({n.b, n.hk, n.sk, n.dv}, dtype)
end

local function linear_options(n)
  local kind = one {"favor+", "trig", "relu", "elu"}
  local o = {features = kind, causal = chance(2), epsilon = chance(2) and 1e-3 or nil}
  if kind ~= "elu" then o.projection = tensor {8, n.d} end
  return o
end

local function state()
  local n = dims()
  local o = linear_options(n)
  o.causal = nil
  o.batch, o.kv_heads, o.head_dim, o.v_head_dim = n.b, n.hk, n.d, n.dv
  return keep("state", attune.linear_state(o)), n
end

local function cache()
  local n = dims()
  local c = attune.cache {
    batch = n.b, kv_heads = n.hk, head_dim = n.d, v_head_dim = n.dv, capacity = 128,
    window = chance(3) and 20 or nil, dtype = one {"f32", "bf16", "f16", "i8"},
  }
  if chance(2) then
    c:append(tensor {n.b, n.hk, 5, n.d}, tensor {n.b, n.hk, 5, n.dv})
    n.sk = 5
  end
  return keep("cache", c), n
end

local function matrix() return tensor({one(sizes), one(sizes)}, one(dtypes)) end
local function shape() return one {{2, 3}, {4}, {1, 2, 3, 4, 5, 6}, {64, 65}} end
local function data() return one {{1, 2, 3}, {{1, 2}, {3, 4}}, {{{1.5}}}, {1}} end

-- name -> a function that returns right arguments
local valid = {
  tensor = function() return data(), {dtype = one(dtypes)} end,
  zeros = function() return shape(), {dtype = one(dtypes)} end,
  ones = function() return shape() end,
  full = function() return shape(), 3.5, {dtype = one(dtypes)} end,
  arange = function() return one {5, 1, -3}, 9, one {1, 0.5, 2}, {dtype = one(dtypes)} end,
  randn = function() return shape(), {seed = 3, mean = 1, std = 2} end,
  uniform = function() return shape(), {seed = 3, low = -1, high = 2} end,
  matmul = function() return tensor {3, 4}, tensor {4, 5} end,
  attention = function()
    local n = dims()
    local q, k, v = qkv(n)
    return q, k, v, options(n)
  end,
  attention_backward = function()
    local n = dims()
    local q, k, v = qkv(n)
    local o = options(n)
    local ok, out, lse = pcall(attune.attention, q, k, v, o)
    if not ok then out, lse = one(pool.tensor), one(pool.tensor) end
    return out, q, k, v, out, lse, o
  end,
  attention_weights = function()
    local n = dims()
    local q, k = qkv(n)
    return q, k, options(n)
  end,
  merge = function()
    local n = dims()
    local q, k, v = qkv(n)
    local o, lse = attune.attention(q, k, v)
    return o, lse, o, lse
  end,
  cache = function() return {kv_heads = 1, head_dim = 16, capacity = one(sizes)} end,
  linear_attention = function()
    local n = dims()
    local q, k, v = qkv(n)
    return q, k, v, linear_options(n)
  end,
  linear_attention_backward = function()
    local n = dims()
    local q, k, v = qkv(n)
    return tensor {n.b, n.hq, n.sq, n.dv}, q, k, v, linear_options(n)
  end,
  favor_projection = function() return {head_dim = 8, features = one(sizes), seed = 1} end,
  favor_features = function()
    return tensor {1, 1, 3, 8}, {projection = tensor {4, 8}, query = chance(2)}
  end,
  linear_state = function()
    return {kv_heads = 1, head_dim = 8, features = "elu", rotate = position(dims(), "rope")}
  end,
  position = function()
    local name = one(encodings)
    return name, position_options(name, dims())
  end,
  rope = function()
    return tensor {1, 2, 3, 8}, {base = 100, positions = {4, 5, 6}}
  end,
  load = function() return folder .. "/file" end,
  save = function()
    return folder .. "/file", {a = one(pool.tensor), b = tensor {3}}, {note = "text"}
  end,
  philox = function() return {1, 2, 3, 4}, {5, 6} end,
  memory = function() return {limit = MEMORY, reset_peak = chance(2)} end,
  threads = function() return random(3) end,
  set_seed = function() return random(9) end,
  block_map = function()
    return one(masks), {queries = one(sizes), keys = one(sizes), heads = 2, kv_heads = 1}
  end,
  program = function() return chance(2) and one(scores) or one(masks) end,
  pack = function() return {{1, 2, 3}, {4}, {5, 6}}, {capacity = one {3, 4, 100}} end,
  ["measure.read"] = function() return 0.0001, tensor {64}, (cache()) end,
  ["measure.peak"] = function() return 0.0001, one {"f32", "bf16", "i8"} end,
  ["measure.bandwidth"] = function() return 0.0001, 4096 end,
  ["measure.sgemm"] = function() return 0.0001, one(sizes) end,
  ["masks.sliding_window"] = function() return one(sizes) end,
  ["masks.prefix"] = function() return one {3, tensor({2}, "i32")} end,
  ["masks.documents"] = function() return one {{1, 1, 2}, {{1, 2}, {1, 1}}, tensor({4}, "i32")} end,
  ["masks.dilated"] = function() return one(sizes), one(sizes) end,
  ["masks.global_local"] = function() return one(sizes), one(sizes) end,
  ["masks.strided"] = function() return one(sizes) end,
  ["masks.natten"] = function() return 3, one {7, nil} end,
  ["masks.natten2d"] = function() return 4, 5, 3 end,
  ["masks.all"] = function() return one(masks), one(masks) end,
  ["masks.any"] = function() return one(masks), one(masks) end,
  ["scores.softcap"] = function() return 5 end,
  ["scores.alibi"] = function() return tensor {2}, {symmetric = true} end,
  ["scores.t5"] = function() return tensor {8, 2}, {max_distance = 20, bidirectional = true} end,
  ["scores.distance"] = function() return 0.5 end,
  ["tensor.view"] = function() return tensor {4, 6}, 2, -1 end,
  ["tensor.expand"] = function() return tensor {1, 6}, 3, 6 end,
  ["tensor.transpose"] = function() return matrix(), 1, 2 end,
  ["tensor.slice"] = function() return tensor {4, 6}, 2, 2, -2 end,
  ["tensor.to"] = function() return matrix(), one(dtypes) end,
  ["tensor.softmax"] = function() return matrix(), one {1, 2, -1} end,
  ["tensor.__index"] = function() return matrix(), one {1, -1, "shape", "sum"} end,
  ["tensor.__add"] = function() return matrix(), one {1.5, matrix()} end,
  ["cache.append"] = function()
    local c, n = cache()
    local rotate = chance(2) and position(n, "rope") or nil
    return c, tensor {n.b, n.hk, 3, n.d}, tensor {n.b, n.hk, 3, n.dv},
      {counts = chance(2) and (n.b == 1 and {2} or {2, 3}) or nil, rotate = rotate}
  end,
  ["cache.attend"] = function()
    local c, n = cache()
    n.sk = c.length
    return c, tensor {n.b, n.hq, math.min(n.sq, math.max(c.length, 1)), n.d}, options(n, true)
  end,
  ["cache.truncate"] = function()
    local c = cache()
    return c, random(0, c.length)
  end,
  ["state.append"] = function()
    local s, n = state()
    return s, tensor {n.b, n.hk, 3, n.d}, tensor {n.b, n.hk, 3, n.dv}
  end,
  ["state.attend"] = function()
    local s, n = state()
    s:append(tensor {n.b, n.hk, 3, n.d}, tensor {n.b, n.hk, 3, n.dv})
    return s, tensor {n.b, n.hq, 1, n.d}
  end,
  ["position.rotate"] = function()
    local n = dims()
    return position(n), tensor {n.b, n.hq, n.sk, n.d}, nil, one {"q", "k"}
  end,
  ["position.embed"] = function()
    local n = dims()
    return position(n), tensor {n.b, n.sk, n.d}, {1}
  end,
  ["position.bucket"] = function() return position(dims(), "t5"), random(-200, 200) end,
}

-- ---- what can be called ---------------------------------------------------------------------

local subjects = {} -- {name =, fn =, kind = of the handle that comes first, or nil}
local function add(name, fn, kind)
  if type(fn) == "function" and not name:find "%f[%w_]_%l" or type(fn) == "function" and kind then
    subjects[#subjects + 1] = {name = name, fn = fn, kind = kind}
  end
end

local function upvalue(fn, wanted)
  for n = 1, 255 do
    local name, value = debug.getupvalue(fn, n)
    if not name then return nil end
    if name == wanted or n == wanted then return value end
  end
end

local function sorted(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = tostring(name) end
  table.sort(names)
  return names
end

local function fields_of(handle, kind)
  local ok, message = pcall(function() return handle.no_such_name_as_this end)
  assert(not ok)
  for name in message:match("expected one of (.*)$"):gmatch "[%w_]+" do
    add(kind .. "." .. name, function(h) return h[name] end, kind)
  end
end

local function find_subjects()
  for _, name in ipairs(sorted(upvalue(getmetatable(attune).__index, "modules"))) do
    local _ = attune[name]
  end
  for _, name in ipairs(sorted(attune)) do
    local value = attune[name]
    if type(value) == "table" and name:sub(1, 1) ~= "_" then
      for _, inner in ipairs(sorted(value)) do add(name .. "." .. inner, value[inner]) end
      local meta = getmetatable(value)
      if meta and meta.__call then add(name, function(...) return value(...) end) end
    else
      add(name, value)
    end
  end
  local n = {b = 1, hk = 1, hq = 1, sq = 2, sk = 2, d = 4, dv = 4}
  local handles = {
    tensor = tensor {2}, cache = (cache()), position = position(n, "rope"), state = (state()),
  }
  for _, kind in ipairs(sorted(handles)) do
    local meta = getmetatable(handles[kind])
    local methods = upvalue(meta.__index, 2)
    for _, name in ipairs(sorted(methods)) do add(kind .. "." .. name, methods[name], kind) end
    for _, name in ipairs(sorted(meta)) do add(kind .. "." .. name, meta[name], kind) end
    fields_of(handles[kind], kind)
  end
  keep("program", attune.program(masks[1]))
  keep("map", attune.block_map(masks[1], {queries = 70}))
  for _, kind in ipairs {"program", "map"} do
    local meta = getmetatable(pool[kind][1])
    for _, name in ipairs(sorted(meta)) do add(kind .. "." .. name, meta[name], kind) end
  end
end

-- ---- a call ---------------------------------------------------------------------------------

local function spoil(args)
  local i = random(math.max(args.n, 1))
  local x = args[i]
  local n = random(10)
  if n <= 3 then
    args[i] = any()
    args.n = math.max(args.n, i)
  elseif n <= 6 and type(x) == "table" and not is_object(x) then
    local keys = {}
    for key in next, x do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    local key = #keys > 0 and one(keys) or "none"
    if n == 4 then rawset(x, key, nil)
    elseif n == 5 then rawset(x, key, any())
    else rawset(x, chance(2) and "no_such_option" or random(3), any()) end
  elseif n == 7 and type(x) == "table" then
    if not debug.getmetatable(x) then meta_table(x) end
  elseif n == 8 then
    close(x)
  elseif n == 9 then
    args.n = random(0, args.n)
  else
    args.n = args.n + 1
    args[args.n] = any()
  end
end

local function generic(kind)
  local args = {n = random(0, 4)}
  for i = 1, args.n do args[i] = any() end
  if kind then
    args[1] = one(pool[kind])
    args.n = math.max(args.n, 1)
  end
  return args
end

-- A measurement lasts as long as it is told to.
local function limit_time(name, args)
  local seconds = args[1]
  if name:find "^measure" and (seconds == nil or type(seconds) == "number") then
    if seconds == nil or seconds > 0.001 and seconds < 3600 then args[1] = 0.0001 end
    if name == "measure.sgemm" and args[2] == nil then args[2] = 8 end
    args.n = math.max(args.n, 2)
  end
  if name == "threads" and type(args[1]) == "number" and args[1] > 8 then args[1] = 3 end
end

local function is_refusal(message)
  if type(message) ~= "string" then return true, "" end -- a value that a score function raised
  local where, text = message:match "^(%S-:%d+): (.*)$"
  text = text or message
  -- profile and no_grad call any function, also a mask of the library, which needs `at`.
  if where and where:find "program/masks" and text:find "local 'at'" then return true end
  if where and where:find "attune/" and not where:find "fuzz/api" then return false end
  if where and where:find "fuzz/api" then return true end -- raised in a function above
  return text:find "^[%a_][%w_ .%-]*: " or text:find "^unknown [%a ]+ '"
    or text:find "bad argument #%d" or text:find "not enough memory"
    or text:find "^interrupted!" or text:find "mischief" or text:find "^a traced value was kept"
    or text:find "^attempt to yield " -- by a function that profile or no_grad called
end

local findings, refused, done = 0, 0, 0
local function report(n, name, message)
  findings = findings + 1
  if findings <= 20 then
    io.stderr:write(("fuzz/api: call %d, %s: %s\n"):format(n, name, tostring(message)))
  end
end

local log = assert(io.open(folder .. "/call", "w"))
log:setvbuf "no"
local function say(n, name)
  log:seek "set"
  log:write(("%d %-40s\n"):format(n, name))
end

local function run(n)
  local subject = one(subjects)
  say(n, subject.name)
  local make = valid[subject.name]
  local args
  if make and not chance(10) then
    local ok, packed = pcall(function() return table.pack(make()) end)
    args = ok and packed or generic(subject.kind)
  else
    args = generic(subject.kind)
  end
  for _ = 1, random(0, 2) do spoil(args) end
  limit_time(subject.name, args)
  current = args
  garbage(random(0, 3))
  if chance(8) then attune._fail_at(random(8)) end -- an allocation of the core fails
  local results
  if chance(2) then
    results = table.pack(pcall(subject.fn, table.unpack(args, 1, args.n)))
  else
    local thread = coroutine.create(function(...) return pcall(subject.fn, ...) end)
    results = table.pack(coroutine.resume(thread, table.unpack(args, 1, args.n)))
    table.remove(results, 1)
    results.n = results.n - 1
    if coroutine.status(thread) == "suspended" then
      report(n, subject.name, "yielded out of a call")
      coroutine.close(thread)
    end
  end
  current = {n = 0}
  if results[1] then
    done = done + 1
    for i = 2, results.n do
      local kind = attune._kind(results[i])
      if kind and pool[kind] then keep(kind, results[i]) end
    end
  else
    refused = refused + 1
    if not is_refusal(results[2]) then report(n, subject.name, results[2]) end
  end
  reset()
end

local function set_collector()
  local n = random(4)
  if n == 1 then
    collectgarbage "generational"
  else
    collectgarbage "incremental"
    collectgarbage("setpause", n == 2 and 0 or 110)
    collectgarbage("setstepmul", n == 2 and 10000 or 200)
  end
end

io.stderr:setvbuf "no"
reset()
find_subjects()
for n = 1, calls do
  if n % 500 == 1 then set_collector() end
  run(n)
end
print(("fuzz/api: %d functions, %d calls (%d answered, %d refused), seed %d: %d findings"):format(
  #subjects, calls, done, refused, seed, findings
))
os.exit(findings == 0 and 0 or 1)
