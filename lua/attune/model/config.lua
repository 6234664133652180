--- The configuration of a model: what it costs follows from its fields.
--
-- A configuration is a plain table of fields (presets.lua names them) with the methods below. The
-- methods read the fields when they are called, so that a changed field changes the cost.
-- `cfg.parameters` is the number of parameters.
local cache = require "attune.model.cache"
local numbers = require "attune.model.numbers"
local options = require "attune.util.options"
local parts = require "attune.model.parts"
local roofline = require "attune.model.roofline"
local suggest = require "attune.util.suggest"

local config = {}

local methods = {}
local max_size = 1 << 31

-- Sizes that every configuration has, and those that may be left out.
local sizes = {"layers", "d_model", "heads", "head_dim", "kv_heads", "d_ff", "vocab"}
local nested = {
  mla = {"kv_rank", "q_rank", "nope", "rope", "v"},
  experts = {"routed", "shared", "chosen", "d_ff", "dense_layers"},
  t5 = {"buckets"},
}
local choices = {
  norm = {layernorm = true, rmsnorm = true},
  block = {serial = true, parallel = true},
  kind = {decoder = true, ["encoder-decoder"] = true},
  position = {
    none = true, learned = true, sinusoidal = true, rope = true, rope2d = true, xpos = true,
    alibi = true, t5 = true,
  },
}
-- `mlp` is an activation or a gated unit. Only gating changes what is counted.
local activations = {
  relu = true, gelu = true, gelu_tanh = true, silu = true, swiglu = true, geglu = true,
  reglu = true, glu = true,
}
choices.mlp = activations

-- Fields of tables inside of a configuration that no count depends on.
local uncounted = {rope = {"base", "dims", "pairing"}, alibi = {"max_bias"}, t5 = {"max_distance"}}
local booleans = {
  "norm_bias", "shared_norm", "tied", "bias", "attention_bias", "mlp_bias", "head_bias",
}

local known_fields = {
  "name", "family", "source", "note", "kind", "layers", "encoder_layers", "d_model", "heads",
  "head_dim", "kv_heads", "d_ff", "mlp", "norm", "norm_bias", "shared_norm", "block", "position",
  "rope", "alibi", "t5", "max_positions", "window", "mla", "experts", "vocab", "context", "tied",
  "bias", "attention_bias", "mlp_bias", "head_bias",
}

local is_known = {}
for _, name in ipairs(known_fields) do is_known[name] = true end
local texts = {"name", "family", "source", "note"}

local function copied(t)
  local copy = {}
  for key, value in next, t do copy[key] = value end
  return copy
end

local function check_size(fields, name, min, level, prefix)
  local x = rawget(fields, name)
  local exact = math.type(x) and math.tointeger(x)
  if exact and exact >= min and exact < max_size then return exact end
  local form = "%s%s: expected an integer from %d to 2^31 - 1, got %s"
  error(form:format(prefix or "", name, min, options.describe(x)), level + 1)
end

local function check_names(cfg, level)
  for _, name in ipairs {"mla", "experts", "t5", "rope", "alibi"} do
    local value = cfg[name]
    if value then
      local names = {}
      for _, list in ipairs {nested[name] or {}, uncounted[name] or {}} do
        table.move(list, 1, #list, #names + 1, names)
      end
      options.read(value, names, level + 1, name)
    end
  end
end

local function check_booleans(cfg, level)
  for _, name in ipairs(booleans) do
    local value = cfg[name]
    if value ~= nil and type(value) ~= "boolean" then
      error(("%s: expected true or false, got %s"):format(name, options.describe(value)), level + 1)
    end
  end
end

-- A field that was set after the configuration was made may have a wrong name.
local function check_fields(cfg, level)
  for name in next, cfg do
    if not is_known[name] then
      error(("unknown field %s of a configuration; %s"):format(
        options.describe(name), suggest(tostring(name), known_fields)), level + 1)
    end
  end
  for _, name in ipairs(texts) do
    local value = rawget(cfg, name)
    if value ~= nil and type(value) ~= "string" then
      error(("%s: expected a text, got %s"):format(name, options.describe(value)), level + 1)
    end
  end
end

-- A checked copy of a configuration's fields, nested tables included.
local function checked(cfg, level)
  level = level + 1
  check_fields(cfg, level)
  local copy = {kind = "decoder"}
  for _, name in ipairs(known_fields) do
    local value = rawget(cfg, name)
    if value ~= nil then copy[name] = value end
  end
  for _, name in ipairs(sizes) do copy[name] = check_size(cfg, name, 1, level) end
  if copy.kv_heads > copy.heads then
    error(("kv_heads: expected at most the %d heads, got %d"):format(copy.heads, copy.kv_heads),
      level)
  end
  check_booleans(copy, level)
  check_names(copy, level)
  for name, known in pairs(choices) do numbers.choice(copy, name, nil, known, level) end
  for name, names in pairs(nested) do
    local value = copy[name]
    if value ~= nil then
      if type(value) ~= "table" then
        error(("%s: expected a table, got %s"):format(name, options.describe(value)), level)
      end
      copy[name] = {}
      for _, field in ipairs(names) do
        copy[name][field] = check_size(value, field, 0, level, name .. ".")
      end
    end
  end
  if copy.position == "learned" then check_size(copy, "max_positions", 1, level) end
  if copy.position == "t5" and not copy.t5 then copy.t5 = {buckets = 32} end
  if copy.kind == "encoder-decoder" then
    check_size(copy, "encoder_layers", 1, level)
    for name, expected in pairs {block = "serial", mla = false, experts = false} do
      if (copy[name] or false) ~= expected then
        error(("%s: expected %s in an encoder-decoder, got %s"):format(
          name, expected or "none", options.describe(copy[name])), level)
      end
    end
  else
    copy.encoder_layers = nil
  end
  if copy.rope ~= nil then
    if type(copy.rope) ~= "table" then
      error(("rope: expected a table, got %s"):format(options.describe(copy.rope)), level)
    end
    local dims = rawget(copy.rope, "dims")
    copy.rope = {dims = dims and check_size(copy.rope, "dims", 0, level, "rope.")}
  end
  if copy.window then copy.window = check_size(copy, "window", 0, level) end
  local e = copy.experts
  if e and (e.chosen > e.routed or e.dense_layers > copy.layers or e.routed < 1) then
    error("experts: expected chosen <= routed and dense_layers <= layers", level)
  end
  return copy
end

-- Errors name the line that called a method, `level` frames up. So no method ends in a tail call of
-- what may raise: its frame must be there to be counted.
local function parts_of(cfg, given, level)
  level = level + 1
  local o = options.read(given, {"context", "source"}, level)
  local fields = checked(cfg, level)
  local context = numbers.integer(o, "context", fields.context or 1, 1, level)
  local source = numbers.integer(o, "source", context, 0, level)
  local list = parts.list(fields, context, source, level)
  return list
end

--- Parts with their parameters and the FLOPs of one decoded token.
---@param given? {context?: integer, source?: integer} keys of the token, itself included (default:
---  the model's context); tokens of the encoder
---@return attune.model.Part[]
function methods:parts(given)
  local list = parts_of(self, given, 2)
  return list
end

--- FLOPs of one decoded token; `given` as of `parts`.
---@return integer
function methods:flops(given)
  return parts.sum(parts_of(self, given, 2), "flops")
end

local size_options = {"context", "batch", "dtype", "source"}

local function read_sizes(cfg, given, known, level)
  level = level + 1
  local o = options.read(given, known, level)
  local fields = checked(cfg, level)
  o.context = numbers.integer(o, "context", fields.context or 1, 0, level)
  o.batch = numbers.integer(o, "batch", 1, 1, level)
  o.source = numbers.integer(o, "source", o.context, 0, level)
  o.dtype = numbers.choice(o, "dtype", "bf16", cache.dtypes, level)
  return o, fields
end

--- Bytes of keys and values by the formula, exact, not rounded to the tiles of attune's cache:
---   2 batch layers kv_heads context head_dim bytes
--- i8 adds 4 bytes of scale for each K and each V row. A model with a window holds at most the
--- window's tokens. Latent attention holds kv_rank + rope numbers per token and layer. An
--- encoder-decoder also holds the keys and values of `source` tokens (default: context).
---@param given {context: integer, batch?: integer, dtype?: string, source?: integer}
---@return integer
function methods:kv_bytes(given)
  local o, fields = read_sizes(self, given, size_options, 2)
  local bytes = cache.formula(fields, o, 2)
  return bytes
end

--- Bytes that attune's own caches take for the same: one cache per layer, capacity rounded up to a
--- multiple of 64 tokens, head_dim to one of 16, a window to a ring. Latent attention is expanded.
---@param given {context: integer, batch?: integer, dtype?: string, source?: integer}
---@return integer
function methods:cache_bytes(given)
  local o, fields = read_sizes(self, given, size_options, 2)
  local bytes = cache.attune_bytes(fields, o, 2)
  return bytes
end

local longest_options = {"batch", "memory", "fraction", "chips", "sharding", "dtype", "source"}

--- The longest context whose cache fits, in tokens (Pope et al. 2022, arXiv 2211.05102, table 1).
--- With "heads" each chip holds its part of the kv heads of all rows, at least one head; with
--- "batch" it holds all kv heads of its part of the rows. math.huge where a window fits.
---@param given {batch?: integer, memory: integer, fraction?: number, chips?: integer,
---  sharding?: "heads"|"batch", dtype?: string}
---@return integer tokens
function methods:longest_context(given)
  local o = options.read(given, longest_options, 2)
  local chips = {
    memory = numbers.integer(o, "memory", nil, 1, 2),
    fraction = numbers.number(o, "fraction", 1, 0, 1, 2),
    chips = numbers.integer(o, "chips", 1, 1, 2),
    sharding = numbers.choice(o, "sharding", "heads", cache.shardings, 2),
  }
  o.memory, o.fraction, o.chips, o.sharding = nil, nil, nil, nil
  local read, fields = read_sizes(self, o, {"batch", "dtype", "source"}, 2)
  local tokens = cache.longest(fields, read, chips, 2)
  return tokens
end

local step_options = {
  "hardware", "batch", "context", "source", "weights", "cache", "chips", "sharding",
}

--- Memory and time of one decoding step by the roofline; see roofline.lua.
---@param given {hardware: string|attune.model.Hardware, batch?: integer, context?: integer,
---  weights?: string, cache?: string, chips?: integer, sharding?: "heads"|"batch"}
---@return attune.model.Step
function methods:decode(given)
  local step = config.decode(self, given, 2)
  return step
end

--- The same, with the level of its errors.
---@param level integer as of `error`, from the caller
---@return attune.model.Step
function config.decode(cfg, given, level)
  level = level + 1
  local o = options.read(given, step_options, level)
  local plan = roofline.read(o, level)
  o.dtype = numbers.choice(o, "cache", "bf16", cache.dtypes, level)
  for _, name in ipairs {"hardware", "weights", "cache", "chips", "sharding"} do o[name] = nil end
  local read, fields = read_sizes(cfg, o, size_options, level)
  plan.context, plan.batch = math.max(1, read.context), read.batch
  plan.source, plan.cache = read.source, read.dtype
  local step = roofline.step(fields, plan, level)
  return step
end

--- What other attention would change: MHA, GQA with 8 kv heads, MQA, an i8 cache, a window.
---@param given {hardware: string|attune.model.Hardware, batch?: integer, context?: integer,
---  weights?: string, cache?: string, chips?: integer, sharding?: "heads"|"batch",
---  window?: integer} as of `decode`; window: the tokens of the window
---@return attune.model.Variant[] the first is the model as it is
function methods:variants(given)
  local o = options.read(given, {"window", table.unpack(step_options)}, 2)
  local window = o.window
  o.window = nil
  -- Once with the model as it is, so that what is wrong with the options is found here.
  config.decode(self, o, 2)
  local variants = require "attune.model.variants"
  local list = variants(config, self, o, checked(self, 2), window, 2)
  return list
end

--- A configuration with other fields, such as {kv_heads = 1} or {window = 4096}; mla = false,
--- experts = false and window = false take them away.
---@param changes table
---@return attune.model.Config
function methods:with(changes)
  local changed = config.with(self, changes, 2)
  return changed
end

-- The picture is a module of its own, loaded when it is first asked for.
local function picture() return require "attune.model.picture" end

--- The block as text, with box-drawing characters.
---@return string
function methods:draw()
  local fields = checked(self, 2)
  return picture().text(fields)
end

--- The block as an SVG picture.
---@return string
function methods:svg()
  local fields = checked(self, 2)
  return picture().svg(fields)
end

-- The sum of "parameters" or "active" over the parts.
local function total(cfg, field, level)
  local list = parts.list(checked(cfg, level + 1), 1, 1, level + 1)
  return parts.sum(list, field)
end

local totals = {parameters = "parameters", active_parameters = "active"}

local meta = {
  __name = "attune.model.Config",
  __index = function(cfg, name)
    local field = totals[name]
    if not field then return methods[name] end
    local sum = total(cfg, field, 2)
    return sum
  end,
}

--- Gives fields the methods.
---@param fields table which becomes the configuration
---@return attune.model.Config
function config.new(fields) return setmetatable(fields, meta) end

--- The fields of a configuration with changes, checked.
---@param level integer as of `error`, from the caller
---@return attune.model.Config
function config.with(cfg, changes, level)
  local o = options.read(changes, known_fields, level + 1, "changes")
  local copy = {}
  for _, name in ipairs(known_fields) do copy[name] = rawget(cfg, name) end
  for name, value in pairs(o) do copy[name] = value end
  for name in pairs(nested) do
    if type(copy[name]) == "table" then copy[name] = copied(copy[name]) end
  end
  -- false takes latent attention, experts or a window away.
  for _, name in ipairs {"mla", "experts", "window"} do copy[name] = copy[name] or nil end
  copy.kind, copy.block = copy.kind or "decoder", copy.block or "serial"
  checked(copy, level + 1)
  return config.new(copy)
end

--- The names of all fields.
config.fields = known_fields

return config
