--- The options of a Decoder and of its parts: what each is, its default, and what does not fit
--- together. Each layer gets an own table, in which its entry of `pattern` overrides the common
--- options.
local core = require "attune.core"
local layers = require "attune.nn.layers"
local options = require "attune.util.options"
local copy = require "attune.util.tables".copy
local raise = core._raise

local config = {}

-- A side of a window: a number of tokens, or -1 for no limit.
local function is_side(x) return math.type(x) == "integer" and x >= -1 end

-- Kinds of options: the check, and what a message says was expected.
local kinds = {
  count = {function(x) return math.type(x) == "integer" and x >= 1 end,
    "an integer of at least 1"},
  integer = {function(x) return math.type(x) == "integer" end, "an integer"},
  number = {function(x) return type(x) == "number" and x == x and math.abs(x) < math.huge end,
    "a finite number"},
  at_least_0 = {function(x) return type(x) == "number" and x >= 0 and x < math.huge end,
    "a finite number of at least 0"},
  flag = {function(x) return type(x) == "boolean" end, "true or false"},
  fraction = {function(x) return type(x) == "number" and x >= 0 and x < 1 end,
    "a number from 0 to below 1"},
  window = {function(x)
    return math.type(x) == "integer" and x >= 1 or x == false
      or type(x) == "table" and rawlen(x) == 2 and is_side(rawget(x, 1)) and is_side(rawget(x, 2))
  end, "a number of tokens, {left, right} or false"},
  fields = {function(x) return type(x) == "table" end, "a table of named fields"},
  list = {function(x) return type(x) == "table" end, "a list"},
}

local function choice(...)
  local names = {...}
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  return {function(x) return known[x] end, "one of " .. table.concat(names, ", ")}
end

local mlps = {"none"}
for name in pairs(layers.mlp_kinds) do mlps[#mlps + 1] = name end
table.sort(mlps)

-- Options that a layer may override.
local of_layer = {
  heads = kinds.count, kv_heads = kinds.count, head_dim = kinds.count, v_head_dim = kinds.count,
  d_ff = kinds.count,
  mlp = choice(table.unpack(mlps)),
  position = choice("none", "learned", "sinusoidal", "rope", "rope2d", "xpos", "alibi", "t5"),
  window = kinds.window, softcap = kinds.at_least_0, scale = kinds.number, sinks = kinds.flag,
  qk_norm = {function(x) return type(x) == "boolean" or x == "heads" or x == "all" end,
    'false, true ("heads": each head by itself) or "all"'},
  gate = kinds.flag, k_equals_v = kinds.flag, share_kv = kinds.integer,
  linear = {function(x) return x == false or type(x) == "table" end,
    'false or a table such as {features = "favor+", count = 64}'},
  causal = kinds.flag, cross = kinds.flag,
  rope = kinds.fields, xpos = kinds.fields, alibi = kinds.fields, t5 = kinds.fields,
  sinusoidal = kinds.fields, rope2d = kinds.fields,
}

local common = {
  vocab = kinds.count, d_model = kinds.count, layers = kinds.count, context = kinds.count,
  layer = kinds.count,
  norm = choice("rmsnorm", "layernorm", "none"),
  norm_eps = kinds.number, norm_bias = kinds.flag, norm_weight = kinds.flag,
  norm_offset = kinds.number,
  norm_place = choice("before", "after", "both", "residual"),
  final_norm = kinds.flag, embed_norm = kinds.flag,
  block = choice("serial", "parallel"), shared_norm = kinds.flag,
  tied = kinds.flag,
  bias = kinds.flag, qkv_bias = kinds.flag, o_bias = kinds.flag, mlp_bias = kinds.flag,
  head_bias = kinds.flag,
  embed_scale = kinds.number, logit_scale = kinds.number, logit_softcap = kinds.at_least_0,
  residual_scale = kinds.number,
  label_smoothing = kinds.fraction, z_loss = kinds.at_least_0,
  dropout = kinds.fraction, recompute = kinds.flag,
  seed = kinds.integer, std = kinds.number, std_out = kinds.number,
  dtype = choice("f32", "f64"),
  pattern = kinds.list, name = {function(x) return type(x) == "string" end, "a string"},
}

-- The fields of options that are tables; the core knows those of the other encodings.
local fields_of = {
  linear = {
    features = choice("favor+", "trig", "relu", "elu"), count = kinds.count,
    epsilon = kinds.at_least_0,
  },
  t5 = {buckets = kinds.count, max_distance = kinds.count, bidirectional = kinds.flag},
}

local function names_of(...)
  local names = {}
  for _, set in ipairs {...} do
    for name in pairs(set) do names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function without(set, ...)
  local rest = copy(set)
  for _, name in ipairs {...} do rest[name] = nil end
  return rest
end

local all_names = names_of(of_layer, without(common, "layer", "name"))
local layer_names = names_of(of_layer)

-- Options of an Attention and of a Block by itself.
local of_attention = {
  d_model = 1, norm = 1, norm_eps = 1, norm_offset = 1, bias = 1, qkv_bias = 1, o_bias = 1,
  seed = 1, std = 1, std_out = 1, dtype = 1, name = 1,
}
local of_block = {
  layer = 1, layers = 1, norm_bias = 1, norm_weight = 1, norm_place = 1, block = 1,
  shared_norm = 1, mlp_bias = 1, residual_scale = 1, dropout = 1,
}
local part_names = {
  attention = names_of(without(of_layer, "share_kv", "d_ff", "mlp", "cross"), of_attention),
  block = names_of(without(of_layer, "share_kv"), of_attention, of_block),
}

local function check_value(name, value, kind)
  if not kind[1](value) then
    raise(("%s: expected %s, got %s"):format(name, kind[2], options.describe(value)))
  end
end

local function check(o, prefix)
  for name, value in next, o do
    check_value(prefix .. name, value, of_layer[name] or common[name])
    local fields = value and fields_of[name]
    if fields then
      local full = prefix .. name
      for field, x in next, options.read(value, names_of(fields), nil, full) do
        check_value(full .. "." .. field, x, fields[field])
      end
    end
  end
end

-- Raises where options contradict each other: one of them would have no effect.
local function check_together(c)
  local function refuse(name, condition, what)
    if condition then
      raise(("%s: expected %s, got %s"):format(name, what, options.describe(c[name])))
    end
  end
  refuse("norm_place", c.block == "parallel" and c.norm_place ~= "before",
    "'before' with block = 'parallel', whose norms have one place")
  refuse("cross", c.cross and c.block == "parallel",
    "block = 'serial', as a parallel block has no cross-attention")
  refuse("shared_norm", c.shared_norm and c.block ~= "parallel",
    "block = 'parallel', whose branches can share a norm")
  refuse("head_bias", c.head_bias and c.tied,
    "tied = false, as a tied head has no bias")
  refuse("norm_offset", (c.norm_offset or 0) ~= 0 and c.norm ~= "rmsnorm",
    "norm = 'rmsnorm', which alone has an offset")
  refuse("norm_bias", c.norm_bias and c.norm ~= "layernorm",
    "norm = 'layernorm', which alone has a bias")
end

-- Fills in what follows from other options of one layer.
local function complete(c, prefix)
  c.kv_heads = c.kv_heads or c.heads
  if c.heads % c.kv_heads ~= 0 then
    raise(("%skv_heads: expected a divisor of heads, %d, got %d"):format(
      prefix, c.heads, c.kv_heads))
  end
  if not c.head_dim then
    if c.d_model % c.heads ~= 0 then
      local form = "%shead_dim: expected heads to divide d_model %d, got %d heads; or give head_dim"
      raise(form:format(prefix, c.d_model, c.heads))
    end
    c.head_dim = c.d_model // c.heads
  end
  c.v_head_dim = c.v_head_dim or c.head_dim
  c.d_ff = c.d_ff or 4 * c.d_model
  if c.k_equals_v and c.v_head_dim ~= c.head_dim then
    raise(("%sk_equals_v: expected v_head_dim %d as head_dim, got %d"):format(
      prefix, c.head_dim, c.v_head_dim))
  end
  if c.softcap == 0 then c.softcap = nil end
  if c.qk_norm == true then c.qk_norm = "heads" end
  return c
end

-- Linear attention never forms scores: what needs them is refused.
local function check_linear(c, prefix)
  if not c.linear then return end
  c.linear = copy(c.linear)
  local count = c.linear.count
  if c.linear.features == "trig" and count and count % 2 == 1 then
    raise(("%slinear.count: expected an even number of features, as each row of the projection "
      .. "makes two, got %d"):format(prefix, count))
  end
  -- The number of features, which is what an encoding rotates.
  c.linear.total = c.linear.features == "elu" and c.head_dim or c.linear.count
  for _, name in ipairs {"window", "softcap", "sinks", "scale"} do
    if c[name] then
      raise(("%s%s: linear attention never forms the scores q . k that it needs; leave it out, or "
        .. "take linear = false"):format(prefix, name))
    end
  end
  if c.position == "alibi" or c.position == "t5" then
    local form = "%sposition: linear attention never forms the scores that %s adds to; take rope, "
      .. "learned, sinusoidal or none, or linear = false"
    raise(form:format(prefix, c.position))
  end
end

-- What is added to the embeddings is added once, before the first layer.
local of_the_model = {learned = true, sinusoidal = true}

local function same_fields(a, b)
  for name, value in next, a or {} do
    if (b or {})[name] ~= value then return false end
  end
  return true
end

-- An entry of the pattern may repeat such an encoding of the model, but not bring its own.
local function check_added(o, c, prefix)
  local name = o.position
  if of_the_model[name] and name ~= c.position then
    raise(("%sposition: expected an encoding of one layer, got '%s', which is added to the "
      .. "embeddings of the whole model: give position = '%s' beside pattern, and position = "
      .. "'none' in the entries"):format(prefix, name, name))
  end
  if o.sinusoidal and not (same_fields(o.sinusoidal, c.sinusoidal)
    and same_fields(c.sinusoidal, o.sinusoidal))
  then
    raise(("%ssinusoidal: expected the options of the whole model, to whose embeddings the sines "
      .. "are added: give sinusoidal beside pattern"):format(prefix))
  end
end

-- The number of the earlier layer whose K and V layer n uses.
local function shared_layer(c, n, layers_so_far)
  local from = c.share_kv
  if from < 0 then from = n + from end
  if from < 1 or from >= n then
    raise(("pattern: share_kv of layer %d: expected an earlier layer, from 1 to %d, got %d"):format(
      n, n - 1, c.share_kv))
  end
  local other = layers_so_far[from]
  from = other.share_kv or from
  for _, name in ipairs {"kv_heads", "head_dim", "v_head_dim"} do
    if other[name] ~= c[name] then
      raise(("pattern: share_kv of layer %d: expected %s %d as layer %d has, got %d"):format(
        n, name, other[name], from, c[name]))
    end
  end
  return from
end

local defaults = {
  mlp = "gelu", norm = "rmsnorm", position = "rope", block = "serial", norm_place = "before",
  tied = true, bias = false, causal = true, dropout = 0, final_norm = true,
}

local function read(given, known, needs, example)
  local c = options.read(given, known, nil, "options", example)
  check(c, "")
  local derived = {kv_heads = c.kv_heads == nil, v_head_dim = c.v_head_dim == nil}
  for _, name in ipairs(needs) do
    if c[name] == nil then
      raise(("%s: expected %s, got nil"):format(name, (of_layer[name] or common[name])[2]))
    end
  end
  for name, value in pairs(defaults) do
    if c[name] == nil then c[name] = value end
  end
  check_together(c)
  if c.logit_softcap == 0 then c.logit_softcap = nil end
  c.derived = derived -- which of them follow from other options
  return complete(c, "")
end

--- The options with defaults: a new table. Raises where something is wrong.
---@param given table
function config.read(given)
  local c = read(given, all_names, {"vocab", "d_model", "layers", "heads"},
    "{vocab = 256, d_model = 128, layers = 4, heads = 4}")
  c.seed = c.seed or 0
  return c
end

-- What an option follows from: in a layer whose entry replaces that, it follows anew.
local follows_from = {kv_heads = "heads", v_head_dim = "head_dim"}

-- Whether an option of a layer follows from what its entry gives.
local function follows_anew(name, entry, c)
  return c.derived[name] and entry[name] == nil and entry[follows_from[name]] ~= nil
end

-- Encodings rotate pairs of dims, and with two positions twice as many.
local multiple_of = {rope = 2, xpos = 2, rope2d = 4}

local function check_rotation(c, prefix)
  local multiple = multiple_of[c.position]
  local dims = c.linear and c.linear.total or not c.linear and c.head_dim
  if not multiple or not dims or dims % multiple == 0 or (c[c.position] or {}).dims then return end
  local form = "%s%s: expected a multiple of %d, as position = '%s' rotates pairs of them, got %d"
  raise(form:format(
    prefix, dims ~= c.head_dim and "linear.count" or "head_dim", multiple, c.position, dims))
end

-- What the options of one layer still need.
local function finish(layer, prefix)
  if layer.window == false then layer.window = nil end
  complete(layer, prefix)
  check_linear(layer, prefix)
  check_rotation(layer, prefix)
end

--- The options of an Attention or a Block by itself, as config.layers gives them for a layer.
---@param given table
---@param part "attention"|"block"
function config.part(given, part)
  local c = read(given, part_names[part], {"d_model", "heads"}, "{d_model = 128, heads = 4}")
  if of_the_model[c.position] then
    raise(("position: expected an encoding of one layer, got '%s', which is added to the "
      .. "embeddings of a model: add it to x, and take position = 'none'"):format(c.position))
  end
  c.layer, c.layers = c.layer or 1, c.layers or c.layer or 1
  if c.layer > c.layers then
    raise(("layer: expected at most layers, %d, got %d"):format(c.layers, c.layer))
  end
  finish(c, "")
  return c
end

local function read_entry(pattern, k)
  local entry = rawget(pattern, k)
  local prefix = ("pattern[%d]."):format(k)
  local o = options.read(entry, layer_names, nil, ("pattern[%d]"):format(k), "{window = 128}")
  check(o, prefix)
  return o, prefix
end

--- The options of each layer, from what config.read gave.
---@return table[]
function config.layers(c)
  local pattern = c.pattern or {{}}
  local length = rawlen(pattern)
  if length == 0 then
    raise "pattern: expected at least one entry, such as {{window = 128}, {}}, got one of no layer"
  end
  for key in next, pattern do
    if math.type(key) ~= "integer" or key < 1 or key > length then
      raise(("pattern: expected a list of entries {{window = 128}, {}}, got a field %s"):format(
        options.describe(key)))
    end
  end
  if length > c.layers then
    raise(("pattern: expected at most one entry per layer, %d, got %d"):format(c.layers, length))
  end
  local list = {}
  for n = 1, c.layers do
    local o, prefix = read_entry(pattern, (n - 1) % length + 1)
    if not c.pattern then prefix = "" end
    check_added(o, c, prefix)
    local layer = copy(c)
    for name in next, follows_from do
      if follows_anew(name, o, c) then layer[name] = nil end
    end
    for name, value in next, o do layer[name] = value end
    layer.pattern, layer.derived, layer.layer = nil, nil, n
    finish(layer, prefix)
    layer.share_kv = layer.share_kv and shared_layer(layer, n, list)
    list[n] = layer
  end
  return list
end

local function copy_of(value)
  if type(value) ~= "table" then return value end
  local new = {}
  for name, field in next, value do new[name] = copy_of(field) end
  return new
end

-- A module's tensors are searched in its tables without a metatable: options are no part of it.
local Options = {__name = "attune.options"}

--- The options of a model for users: a plain table, which makes the same model again.
function config.public(c)
  local public = copy_of(c)
  public.first_dropout, public.derived = nil, nil
  -- There every option is given, so that nothing follows anew.
  local list = c.pattern and config.layers(c)
  for k, entry in ipairs(public.pattern or {}) do
    for name in next, follows_from do
      if follows_anew(name, entry, c) then entry[name] = list[k][name] end
    end
  end
  return setmetatable(public, Options)
end

--- Whether an encoding is added to the embeddings of the whole model.
function config.is_added(position) return of_the_model[position] or false end

return config
