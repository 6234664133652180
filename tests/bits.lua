--- Prints one line per random problem: its name and a hash of every output, bit for bit.
--
--     lua5.4 tests/bits.lua [PROBLEMS [SEED]]
--
-- Two builds that print the same lines compute the same bits: tests/bits compares them. The seed
-- alone decides the problems, so that both builds get the same ones. Only public names are called.
local attune = require "attune"
local random_programs = require "tests.support.random_programs"

local problems = tonumber(arg and arg[1]) or 2400
local seed = tonumber(arg and arg[2]) or 1

-- ---- hashing -----------------------------------------------------------------------------------

local hash = 0

local function mix(word)
  hash = (hash ~ word) * 0x9E3779B97F4A7C15
  hash = hash ~ (hash >> 29)
end

local unpack_word, pack_word = string.unpack, string.pack

-- NaN by its name, since which NaN it is says nothing.
local function number(x)
  if math.type(x) == "integer" then
    mix(x)
  elseif x ~= x then
    mix(0x7ff8)
  else
    mix(unpack_word("<i8", pack_word("<d", x)))
  end
end

local function flat(x)
  if type(x) ~= "table" then return number(x) end
  for i = 1, #x do flat(x[i]) end
end

local function tensor(t)
  for _, extent in ipairs(t.shape) do mix(extent) end
  for i = 1, #t.dtype do mix(t.dtype:byte(i)) end
  flat(#t.shape == 0 and t:item() or t:tolist())
end

-- ---- drawing -----------------------------------------------------------------------------------

local state

local function pick(n)
  state = (state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
  return (state >> 33) % n + 1
end

local function one_of(list) return list[pick(#list)] end
local function chance(n) return pick(n) == 1 end

local function randn(shape, dtype)
  local t = attune.randn(shape, {seed = pick(1 << 30)})
  return dtype == "f32" and t or t:to(dtype)
end

-- A view of the same numbers with other strides, now and then.
local function strided(t)
  if not chance(4) then return t end
  return t:transpose(2, 3):contiguous():transpose(2, 3)
end

local function lengths_of(tokens)
  local list = {}
  while tokens > 0 do
    list[#list + 1] = math.min(pick(40), tokens)
    tokens = tokens - list[#list]
  end
  return list
end

local function rotation(head_dim)
  local pairing = one_of {"half", "interleaved"}
  local even = head_dim // 2 * 2
  if even ~= head_dim then return nil end
  local kind = pick(6)
  if kind == 1 then return attune.position("xpos", {head_dim = head_dim, pairing = pairing}) end
  if kind == 2 and head_dim > 4 then
    return attune.position("rope", {head_dim = head_dim, dims = 4, pairing = pairing})
  end
  local scaling = one_of {
    false, {type = "linear", factor = 4}, {type = "ntk", factor = 4},
    {type = "dynamic", factor = 4, original = 32}, {type = "yarn", factor = 8, original = 64},
    {type = "llama3", factor = 8, original = 64},
  }
  return attune.position("rope", {head_dim = head_dim, pairing = pairing, scaling = scaling or nil,
                                  angles = one_of {"f64", "f32", "f16"}})
end

local function program_environment()
  local vector = attune.randn({9}, {seed = pick(1 << 30)})
  local grid = attune.randn({3, 7}, {seed = pick(1 << 30)})
  local ids = {}
  for i = 1, 9 do ids[i] = pick(9) end
  return {vector = vector, grid = grid, ids = attune.tensor(ids, {dtype = "i64"})}
end

-- Score and mask functions of a problem. The random ones read grid[at.h] and grid[at.b]: at most 3.
local function add_programs(options, p)
  if chance(3) then
    local kind = pick(4)
    if kind == 1 then
      options.score = attune.position("alibi", {heads = p.heads}).score
    elseif kind == 2 then
      options.score = attune.position("t5", {heads = p.heads, buckets = 8, max_distance = 32,
                                             bidirectional = chance(2), seed = pick(99)}).score
    elseif p.heads <= 3 and p.batch <= 3 then
      local env = program_environment()
      options.score = random_programs.compile(random_programs.score(pick(1 << 30)), "s, at", env)
    end
  end
  if chance(4) then
    local kind = pick(5)
    if kind == 1 then
      options.mask = attune.masks.sliding_window(pick(70))
    elseif kind == 2 then
      options.mask = attune.masks.global_local(pick(5), pick(40))
    elseif kind == 3 then
      options.mask = attune.masks.any(attune.masks.prefix(pick(30)), attune.masks.causal())
    else
      local env = {ids = program_environment().ids}
      options.mask = random_programs.compile(random_programs.mask(pick(1 << 30)), "at", env)
    end
  end
end

local function attention_problem(few)
  local p = {batch = pick(2), kv_heads = pick(3), head_dim = one_of {4, 8, 16, 20, 33, 64, 80, 128}}
  p.heads = p.kv_heads * one_of {1, 1, 2, 3, 5, 8}
  p.keys = one_of {1, 5, 17, 63, 64, 65, 130, 200, 300}
  p.queries = few and math.min(pick(16), p.keys) or one_of {1, 7, 33, 64, 100}
  p.v_head_dim = chance(4) and one_of {4, 12, 40} or p.head_dim
  p.dtype = one_of {"f32", "f32", "bf16", "f16"}
  while p.heads * p.queries * p.keys * p.batch > 200000 do p.queries = p.queries // 2 end
  return p
end

local function inputs(p)
  return strided(randn({p.batch, p.heads, p.queries, p.head_dim}, p.dtype)),
         strided(randn({p.batch, p.kv_heads, p.keys, p.head_dim}, p.dtype)),
         strided(randn({p.batch, p.kv_heads, p.keys, p.v_head_dim}, p.dtype))
end

local function attention_options(p)
  local o = {causal = chance(2) or nil}
  if chance(3) then o.window = pick(90) end
  if chance(4) then o.scale = 0.3 end
  if chance(5) then o.softcap = 2 + pick(20) end
  if chance(5) then o.sinks = randn({p.heads}, "f32") end
  if chance(5) and p.queries <= p.keys then o.lengths = lengths_of(p.keys) end
  if chance(4) then o.rotate = rotation(p.head_dim) end
  if o.rotate and o.rotate.name == "xpos" then o.causal = true end
  add_programs(o, p)
  return o
end

-- ---- what is hashed ----------------------------------------------------------------------------

local kinds = {}

local refused

-- An error is an outcome too: both builds must refuse the same problems. Its words may change.
local function attempt(fn)
  local ok, message = pcall(fn)
  if ok then return end
  refused = true
  mix(0xE44)
  if os.getenv "ATTUNE_BITS_VERBOSE" then io.stderr:write(tostring(message), "\n") end
end

function kinds.attention()
  local p = attention_problem(chance(3))
  local q, k, v = inputs(p)
  local o = attention_options(p)
  o.engine = one_of {"tiled", "tiled", "reference", "blis", "decode"}
  if o.engine == "decode" and (p.queries > 16 or o.lengths) then o.engine = nil end
  if o.engine == "reference" and chance(3) then q, k, v = q:to "f64", k:to "f64", v:to "f64" end
  attempt(function()
    local out, lse = attune.attention(q, k, v, o)
    tensor(out)
    tensor(lse)
  end)
  return o.engine or "default"
end

function kinds.backward()
  local p = attention_problem(false)
  local q, k, v = inputs(p)
  local o = attention_options(p)
  o.engine = one_of {"tiled", "tiled", "tiled", "reference"}
  attempt(function()
    local out, lse = attune.attention(q, k, v, o)
    local d = randn(out.shape, out.dtype)
    local dq, dk, dv, dtables = attune.attention_backward(d, q, k, v, out, lse, o)
    tensor(dq)
    tensor(dk)
    tensor(dv)
    local sum = 0
    local before = hash
    for _, t in pairs(dtables) do
      hash = 0
      tensor(t)
      sum = sum + hash
    end
    hash = before
    mix(sum)
  end)
  return o.engine
end

function kinds.weights()
  local p = attention_problem(true)
  local q, k = inputs(p)
  attempt(function() tensor(attune.attention_weights(q, k, attention_options(p))) end)
  return p.dtype
end

function kinds.cache()
  local p = attention_problem(true)
  p.v_head_dim = p.head_dim
  local dtype = one_of {"f32", "bf16", "f16", "i8"}
  local window = chance(3) and 10 + pick(80) or nil
  local cache = attune.cache {batch = p.batch, kv_heads = p.kv_heads, head_dim = p.head_dim,
                              capacity = 400, dtype = dtype, window = window}
  local pe = chance(3) and rotation(p.head_dim) or nil
  attempt(function()
    for _ = 1, 1 + pick(3) do
      local n = chance(2) and pick(16) or pick(70)
      local k = randn({p.batch, p.kv_heads, n, p.head_dim}, p.dtype)
      local v = randn({p.batch, p.kv_heads, n, p.head_dim}, p.dtype)
      local counts
      if chance(5) then
        counts = {}
        for b = 1, p.batch do counts[b] = pick(n) end
      end
      cache:append(k, v, {rotate = pe, counts = counts})
      if chance(5) then cache:truncate(math.max(1, cache.length - pick(3))) end
      local queries = math.min(window and 64 or 100, cache.length, chance(2) and 1 or n)
      local q = randn({p.batch, p.heads, queries, p.head_dim}, p.dtype)
      local o = {rotate = pe}
      if chance(4) then o.softcap = 20 end
      if chance(4) then o.sinks = randn({p.heads}, "f32") end
      if chance(3) then o.engine = queries <= 16 and one_of {"tiled", "decode"} or "tiled" end
      add_programs(o, p)
      attempt(function()
        local out, lse = cache:attend(q, o)
        tensor(out)
        tensor(lse)
      end)
    end
    mix(cache.nbytes)
  end)
  return dtype
end

local function linear_options(head_dim)
  local features = one_of {"favor+", "trig", "relu", "elu"}
  local n = one_of {8, 16, 48}
  local o = {causal = chance(2), features = features, epsilon = chance(3) and 1e-3 or nil}
  if features ~= "elu" then
    o.projection = attune.favor_projection {head_dim = head_dim, features = n, seed = pick(99)}
  end
  local width = features == "elu" and head_dim or features == "trig" and 2 * n or n
  if chance(3) and width % 2 == 0 then o.rotate = attune.position("rope", {head_dim = width}) end
  return o
end

function kinds.linear()
  local p = attention_problem(false)
  p.queries = p.keys
  p.head_dim = one_of {4, 8, 16, 32}
  local q, k, v = inputs(p)
  local o = linear_options(p.head_dim)
  attempt(function()
    tensor(attune.linear_attention(q, k, v, o))
    if chance(2) then
      local d = randn({p.batch, p.heads, p.queries, p.v_head_dim}, p.dtype)
      local dq, dk, dv = attune.linear_attention_backward(d, q, k, v, o)
      tensor(dq)
      tensor(dk)
      tensor(dv)
    end
    if o.causal then
      local state_of = attune.linear_state {
        batch = p.batch, kv_heads = p.kv_heads, head_dim = p.head_dim, v_head_dim = p.v_head_dim,
        projection = o.projection, features = o.features, rotate = o.rotate, epsilon = o.epsilon}
      state_of:append(k, v)
      tensor(state_of:attend(q:slice(3, p.queries, p.queries)))
    end
  end)
  return o.features
end

function kinds.position()
  local head_dim = one_of {4, 8, 16, 64}
  local pe = rotation(head_dim)
  local tokens = pick(50)
  local x = randn({pick(2), pick(3), tokens, head_dim}, one_of {"f32", "bf16", "f64"})
  local positions
  if chance(2) then
    positions = {}
    for i = 1, tokens do positions[i] = pick(5000) - 1 end
  end
  tensor(pe:rotate(x, positions, one_of {"q", "k"}))
  tensor(pe.inv_freq)
  local e = randn({2, tokens, 32}, "f32")
  tensor(attune.position("sinusoidal", {d_model = 32}):embed(e))
  tensor(attune.position("learned", {d_model = 32, max_positions = 64, seed = pick(9)}):embed(e))
  tensor(attune.position("alibi", {heads = 1 + pick(20)}).slopes)
  return pe.name
end

function kinds.tensor()
  local dtype = one_of {"f32", "f64", "bf16", "f16"}
  local a = randn({pick(3), pick(40), pick(300)}, dtype)
  local b = randn({a.shape[3], pick(40)}, dtype)
  local c = strided(a)
  attempt(function()
    tensor(attune.matmul(c, b))
    tensor((c * 2 - a / 3) ^ 2 + c:abs():sqrt())
    tensor(c:exp():log())
    tensor(c:tanh():sigmoid():gelu():silu())
    tensor(c:softmax(pick(3)))
    tensor(c:sum(pick(3)))
    tensor(c:mean(pick(3)))
    tensor(c:max(pick(3)))
    tensor(c:sum())
    tensor(c:to(one_of {"i8", "i32", "i64", "bf16", "f16"}))
    tensor(attune.uniform({5, 7}, {seed = pick(99)}))
  end)
  return dtype
end

-- ---- the run -----------------------------------------------------------------------------------

local order = {"attention", "attention", "attention", "backward", "backward", "cache", "cache",
               "linear", "weights", "position", "tensor"}

for n = 1, problems do
  local kind = order[(n - 1) % #order + 1]
  state = (seed * 1000003 + n * 7919) & 0x7fffffffffffffff
  for _ = 1, 4 do pick(2) end
  hash, refused = n, false
  local detail = kinds[kind]()
  print(("%5d %-9s %-9s %016x%s"):format(n, kind, detail, hash, refused and " refused" or ""))
  if n % 100 == 0 then collectgarbage() end
end
