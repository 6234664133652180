--- The attention of a block: projections, norms of q and k, rotation, and attune.attention or a
--- cache.
local attune = require "attune"
local core = require "attune.core"
local json = require "attune.util.json"
local layers = require "attune.model.network.layers"
local scope = require "attune.model.network.scope"

local attend = {}

local normalise, apply = layers.normalise, layers.apply

-- ---- projections --------------------------------------------------------------------------------

-- Every form gives q, k, v as [batch, tokens, heads, dim]. v may be k before its norm.
local forms = {}

forms.separate = {
  make = function(w, a, spec)
    a.q = layers.linear(w, spec.q)
    if not a.shares then
      a.k = layers.linear(w, spec.k)
      a.v = spec.v and layers.linear(w, spec.v)
    end
  end,
  run = function(a, x, batch, tokens)
    local s <close> = scope.new()
    local q, k, v
    if a.shares then
      q = s(apply(a.q, x))
    elseif a.v then
      q, k, v = s(layers.apply_all(x, a.q, a.k, a.v))
    else
      q, k = s(layers.apply_all(x, a.q, a.k))
    end
    if a.flat_norm then q = s(normalise(a.q_norm, q)) end
    q = q:view(batch, tokens, a.heads, a.head_dim)
    if a.shares then return q end
    if a.flat_norm then k = s(normalise(a.k_norm, k)) end
    k = k:view(batch, tokens, a.kv_heads, a.head_dim)
    if not v then return q, k, k end
    v = v:view(batch, tokens, a.kv_heads, a.v_head_dim)
    return q, k, v
  end,
}

-- One matrix: all heads of q, then of k, then of v.
forms.joined = {
  make = function(w, a, spec) a.qkv = layers.linear(w, spec.qkv) end,
  run = function(a, x, batch, tokens)
    local s <close> = scope.new()
    local h, kv = a.heads, a.kv_heads
    local y = s(apply(a.qkv, x))
    if a.clip then y = s(layers.clamp(y, -a.clip, a.clip)) end
    y = s(y:view(batch, tokens, h + 2 * kv, a.head_dim))
    local q, k = y:slice(3, 1, h), y:slice(3, h + 1, h + kv)
    local v = y:slice(3, h + kv + 1, h + 2 * kv)
    return q, k, v
  end,
}

-- One matrix: for each kv head its heads of q, then k, then v.
forms.grouped = {
  make = forms.joined.make,
  run = function(a, x, batch, tokens)
    local s <close> = scope.new()
    local group = a.heads // a.kv_heads
    local y = s(s(apply(a.qkv, x)):view(batch, tokens, a.kv_heads, group + 2, a.head_dim))
    local function part(first, last)
      return s(s(y:slice(4, first, last)):contiguous())
        :view(batch, tokens, a.kv_heads * (last - first + 1), a.head_dim)
    end
    local q, k, v = part(1, group), part(group + 1, group + 1), part(group + 2, group + 2)
    return q, k, v
  end,
}

-- Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), K and V expanded. The
-- part of a head that rotates comes first here, which leaves q . k as it is.
forms.latent = {
  make = function(w, a, spec)
    a.rope_dim, a.nope_dim = spec.rope_dim, a.head_dim - spec.rope_dim
    a.latent = spec.latent
    if spec.q_a then
      a.q_a, a.q_a_norm = layers.linear(w, spec.q_a), layers.norm(w, spec.q_a_norm)
    end
    a.q = layers.linear(w, spec.q)
    a.kv_a, a.kv_a_norm = layers.linear(w, spec.kv_a), layers.norm(w, spec.kv_a_norm)
    a.kv_b = layers.linear(w, spec.kv_b)
  end,
  run = function(a, x, batch, tokens)
    local from = a.q_a and normalise(a.q_a_norm, apply(a.q_a, x)) or x
    local q = apply(a.q, from):view(batch, tokens, a.heads, a.head_dim)
    q = core._join(q:slice(4, a.nope_dim + 1, a.head_dim), q:slice(4, 1, a.nope_dim))
    local down = apply(a.kv_a, x)
    local latent = normalise(a.kv_a_norm, down:slice(2, 1, a.latent):contiguous())
    local rotated = down:slice(2, a.latent + 1, a.latent + a.rope_dim):contiguous()
      :view(batch, tokens, 1, a.rope_dim):expand(batch, tokens, a.heads, a.rope_dim)
    local up = apply(a.kv_b, latent):view(batch, tokens, a.heads, a.nope_dim + a.v_head_dim)
    local k = core._join(rotated, up:slice(4, 1, a.nope_dim))
    return q, k, up:slice(4, a.nope_dim + 1, a.nope_dim + a.v_head_dim)
  end,
}

--- The form of that name: how q, k and v come from x.
function attend.form(name) return forms[name] end

-- ---- making -------------------------------------------------------------------------------------

-- A norm with a weight per head and dim, as a norm without weights and a factor.
local function head_norm(w, spec)
  if not spec or not spec.per_head then return spec and layers.norm(w, spec) end
  local norm = layers.norm(w, {kind = spec.kind, eps = spec.eps, n = spec.n})
  if type(spec.per_head) == "table" then -- a tensor per head
    norm.factors = {}
    for h, name in ipairs(spec.per_head) do norm.factors[h] = w:get(name, {spec.n}):tolist() end
    norm.factor = attune.tensor(norm.factors)
  else
    norm.factor = w:get(spec.name .. ".weight", {spec.per_head, spec.n})
  end
  return norm
end

local function over_heads(norm, x)
  if not norm then return x end
  x = normalise(norm, x)
  return norm.factor and x * norm.factor or x
end

-- The rotation of these options, one for all blocks that have the same. LongRoPE has two, for texts
-- up to the trained length and for longer ones: whoever runs the model says which.
local function rotations(w, options)
  w.rotations = w.rotations or {}
  local key = json.encode(options)
  if not w.rotations[key] then
    local scaling = options.scaling
    if scaling and scaling.type == "longrope" then
      local function of_length(length)
        local copy, fixed = {}, {}
        for name, value in pairs(options) do copy[name] = value end
        for name, value in pairs(scaling) do fixed[name] = value end
        copy.scaling, fixed.length = fixed, length
        return attune.position("rope", copy)
      end
      w.rotations[key] = {of_length(scaling.original), of_length(scaling.original + 1)}
      w.switches_at = scaling.original
    else
      w.rotations[key] = {attune.position("rope", options)}
    end
  end
  return table.unpack(w.rotations[key])
end

-- The bias of T5, one table for all blocks of a stack.
local function t5_score(w, bias, heads)
  w.biases = w.biases or {}
  if not w.biases[bias.name] then
    w.biases[bias.name] = attune.position("t5", {
      heads = heads, buckets = bias.buckets, max_distance = bias.max_distance,
      bidirectional = bias.bidirectional, table = w:get(bias.name, {bias.buckets, heads}),
    })
  end
  return w.biases[bias.name].score
end

--- Sets the rotation of an attention.
---@param a table
---@param w table where rotations of equal options are shared
---@param options table of attune.position("rope", ..)
function attend.rotate(a, w, options)
  a.position = options
  a.rope, a.rope_long = rotations(w, options)
end

--- The attention that a description gives.
---@param w table weights
---@param spec table {form, heads, kv_heads, head_dim, v_head_dim, scale, softcap, window, rope,
---  score, or score_of_length = function(keys) that gives it, sinks, q_norm, k_norm, v_norm,
---  flat_norm, shares = number of the block whose keys are used, and what the form needs}
function attend.new(w, spec)
  local a = {
    form_name = spec.form, heads = spec.heads, kv_heads = spec.kv_heads, head_dim = spec.head_dim,
    v_head_dim = spec.v_head_dim or spec.head_dim, window = spec.window, shares = spec.shares,
    flat_norm = spec.flat_norm, clip = spec.clip, keeps = spec.keeps,
    form = forms[spec.form],
  }
  if spec.rope then
    local ok, message = pcall(attend.rotate, a, w, spec.rope)
    if not ok then
      error("config.json: rotation: " .. tostring(message):gsub("^%S+:%d+: ", ""), 0)
    end
  end
  if a.heads % a.kv_heads ~= 0 then
    error(("config.json: expected kv heads that divide %d heads, got %d"):format(
      a.heads, a.kv_heads), 0)
  end
  a.form.make(w, a, spec)
  a.q_norm = head_norm(w, spec.q_norm)
  if not a.shares then
    a.k_norm, a.v_norm = head_norm(w, spec.k_norm), head_norm(w, spec.v_norm)
  end
  a.o = layers.linear(w, spec.o)
  a.options = {
    causal = spec.causal ~= false, scale = spec.scale, softcap = spec.softcap,
    score = spec.bias and t5_score(w, spec.bias, spec.heads) or spec.score,
    score_of_length = spec.score_of_length,
    sinks = spec.sinks and w:get(spec.sinks, {spec.heads}),
  }
  return a
end

-- ---- running ------------------------------------------------------------------------------------

-- Rows of a batch that append fewer tokens have them in their last slots, where the queries must
-- be; cache:append takes the first slots.
local function own_tokens_first(x, call)
  local batch, heads, tokens, dim = table.unpack(x.shape)
  return x:transpose(2, 3):contiguous():view(batch * tokens, heads * dim)
    :take(call.own_first, 1):view(batch, tokens, heads, dim):transpose(2, 3)
end

-- The score function of a, for that many keys.
local function score_of(a, keys)
  local o = a.options
  return o.score_of_length and o.score_of_length(keys) or o.score
end

local function with_cache(a, q, k, v, call, i)
  local cache = call.caches[a.shares or i]
  local rope = call.long and a.rope_long or a.rope
  if not a.shares then
    if call.counts then k, v = own_tokens_first(k, call), own_tokens_first(v, call) end
    cache:append(k, v, {rotate = rope, counts = call.counts})
  end
  local o = a.options
  local y, _, summaries = cache:attend(q, {
    scale = o.scale, softcap = o.softcap, score = score_of(a, cache.length), sinks = o.sinks,
    rotate = rope,
    window = not cache.window and a.window or nil, summaries = call.summaries,
  })
  if summaries then call.summaries_of[i] = summaries end
  return y
end

local function without_cache(a, q, k, v, call, i)
  if a.shares then
    k, v = table.unpack(call.kept[a.shares])
  elseif a.keeps then
    call.kept = call.kept or {}
    call.kept[i] = {k, v}
  end
  local o = a.options
  local y, _, summaries = attune.attention(q, k, v, {
    causal = o.causal, window = a.window, scale = o.scale, softcap = o.softcap,
    score = score_of(a, k.shape[3]), sinks = o.sinks,
    rotate = call.long and a.rope_long or a.rope, summaries = call.summaries,
  })
  if summaries then call.summaries_of[i] = summaries end
  return y
end

--- x [tokens of all rows, width] -> the same.
---@param a table from attend.new
---@param x attune.Tensor
---@param call table see decoder:run
---@param i integer the number of the block
function attend.run(a, x, call, i)
  local batch, tokens = call.batch, call.tokens
  local held <close> = scope.new()
  local function s(...) -- keys and values that other blocks use stay open
    if a.keeps then return ... end
    return held(...)
  end
  local q, k, v = s(a.form.run(a, x, batch, tokens))
  if not a.flat_norm then
    q = s(over_heads(a.q_norm, q))
    v = v and s(over_heads(a.v_norm, v))
    k = k and s(over_heads(a.k_norm, k))
  end
  q, k, v = s(q:transpose(2, 3), k and k:transpose(2, 3), v and v:transpose(2, 3))
  local o = held((call.caches and with_cache or without_cache)(a, q, k, v, call, i))
  o = held(held(held(o:transpose(2, 3)):contiguous()):view(batch * tokens, a.heads * a.v_head_dim))
  local y = apply(a.o, o)
  return y
end

--- The keys and values of x [tokens of all rows, width], for attend.cross.
function attend.keys(a, x, batch, tokens)
  local function heads(linear)
    return apply(linear, x):view(batch, tokens, a.kv_heads, a.head_dim):transpose(2, 3):contiguous()
  end
  return {heads(a.k), heads(a.v)}
end

--- Attention to the keys and values of another sequence, call.memory[i].
function attend.cross(a, x, call, i)
  local batch, tokens = call.batch, call.tokens
  local q = apply(a.q, x):view(batch, tokens, a.heads, a.head_dim):transpose(2, 3)
  local o = attune.attention(q, call.memory[i][1], call.memory[i][2], {scale = a.options.scale})
  o = o:transpose(2, 3):contiguous():view(batch * tokens, a.heads * a.v_head_dim)
  return apply(a.o, o)
end

return attend
