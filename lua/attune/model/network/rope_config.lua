--- The rotation that a configuration asks for: rope_theta and rope_scaling as transformers 4 writes
--- them, rope_parameters as transformers 5 does, one set for all layers or one per kind of layer.
local published_config = require "attune.model.network.published_config"
local sorted_keys = require "attune.util.tables".sorted_keys
local equal, is_empty = published_config.equal, published_config.is_empty

local rope_config = {}

--- The fields that architectures with a rotation have, for their tables.
rope_config.fields = {
  rope_theta = {"positive"},
  rope_scaling = {"table"},
  rope_parameters = {"table"},
  partial_rotary_factor = {"positive"},
  original_max_position_embeddings = {"count"},
}

-- The fields of each kind of scaling, besides rope_type, rope_theta and partial_rotary_factor.
local known = {
  default = {},
  linear = {"factor"},
  dynamic = {"factor", "original_max_position_embeddings"},
  yarn = {
    "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor",
    "mscale", "mscale_all_dim", "truncate",
  },
  longrope = {
    "factor", "original_max_position_embeddings", "short_factor", "long_factor",
    "attention_factor", "short_mscale", "long_mscale",
  },
  llama3 = {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
  proportional = {"factor"},
}
local renamed = {su = "longrope"}

local function kind_of(set)
  local kind = set.rope_type or set.type or "default"
  if set.rope_type and set.type and set.rope_type ~= set.type then
    error(("config.json: rope_type is '%s' and type is '%s'; expected one value"):format(
      tostring(set.rope_type), tostring(set.type)), 0)
  end
  kind = renamed[kind] or kind
  if not known[kind] then
    error(("config.json: rope_type: expected default, linear, dynamic, yarn, longrope, llama3 or "
      .. "proportional, got '%s'"):format(tostring(kind)), 0)
  end
  return kind
end

-- {kind, theta, partial, fields} of one set.
local function read_set(set, c)
  local kind = kind_of(set)
  local read = {kind = kind, theta = set.rope_theta, partial = set.partial_rotary_factor}
  local names = {rope_type = true, type = true, rope_theta = true, partial_rotary_factor = true}
  for _, name in ipairs(known[kind]) do
    names[name] = true
    read[name] = set[name]
  end
  for name, value in pairs(set) do
    if not names[name] and not is_empty(value) then
      c.report(("config.json: unknown field '%s' of rope_scaling of type '%s'"):format(
        tostring(name), kind))
    end
  end
  return read
end

local function is_nested(parameters)
  for name, value in pairs(parameters) do
    local is_kind = name == "full_attention" or name == "sliding_attention"
    if type(value) == "table" and (is_kind or value.rope_type or value.rope_theta) then
      return true
    end
  end
  return false
end

local function differ(a, b)
  error(("config.json: %s and %s differ; expected one value"):format(a, b), 0)
end

-- What has a field of its own outside of a set, by its name in a set.
local outside = {
  theta = "rope_theta", partial = "partial_rotary_factor",
  original_max_position_embeddings = "original_max_position_embeddings",
}
-- What a set says that does not say it.
local implied = {beta_fast = 32, beta_slow = 1, truncate = true}

local function value_of(set, field)
  local value = set[field]
  if value == nil then return implied[field] end
  return value
end

-- What both spellings say must be the same. set: of rope_parameters, or of rope_scaling; gets what
-- only the other one says.
local function check_both(c, set, name)
  local old = name ~= "rope_scaling" and c.rope_scaling and next(c.rope_scaling)
    and read_set(c.rope_scaling, c) or {}
  if old.kind and old.kind ~= set.kind then
    differ("rope_scaling.rope_type", name .. ".rope_type")
  end
  local fields = {}
  for field in pairs(old) do fields[field] = true end
  for field in pairs(next(old) and set or {}) do fields[field] = true end
  for _, field in ipairs(sorted_keys(fields)) do
    local is_outside = outside[field] and (set[field] == nil or old[field] == nil)
    if not is_outside and not equal(value_of(set, field), value_of(old, field)) then
      local published = outside[field] or field
      differ("rope_scaling." .. published, name .. "." .. published)
    end
  end
  for inner, top in pairs(outside) do
    if set[inner] == nil then set[inner] = old[inner] end
    if c[top] and set[inner] and c[top] ~= set[inner] then differ(top, name .. "." .. top) end
  end
end

-- Sets by kind of layer. What the fields outside say belongs to full_attention.
local function nested(c, parameters)
  local sets = {}
  for name, set in pairs(parameters) do
    local is_kind = name == "full_attention" or name == "sliding_attention"
    if is_kind and type(set) == "table" then
      sets[name] = read_set(set, c)
    elseif not is_empty(set) then
      c.report(("config.json: unknown field '%s' of rope_parameters, which has sets of "
        .. "full_attention and sliding_attention"):format(tostring(name)))
    end
  end
  local full = sets.full_attention
  if full then
    check_both(c, full, "rope_parameters.full_attention")
    full.theta, full.partial = full.theta or c.rope_theta, full.partial or c.partial_rotary_factor
  end
  return sets
end

local function read_sets(c)
  local parameters = c.rope_parameters
  local is_new = parameters and next(parameters)
  if is_new and is_nested(parameters) then return nested(c, parameters) end
  local set = read_set(is_new and parameters or c.rope_scaling or {}, c)
  check_both(c, set, is_new and "rope_parameters" or "rope_scaling")
  set.theta = set.theta or c.rope_theta
  set.partial = set.partial or c.partial_rotary_factor
  return {default = set}
end

--- The sets of a configuration: {default = set}, or one per kind of layer (full_attention,
--- sliding_attention). A set is for rope_config.options.
---@param c table fields of the configuration
---@return table<string, table>
function rope_config.sets(c)
  c.rope_sets = c.rope_sets or read_sets(c)
  return c.rope_sets
end

local function number(set, name)
  local value = set[name]
  if type(value) ~= "number" then
    error(("config.json: rope_scaling: %s: expected a number, got %s"):format(
      name, tostring(value)), 0)
  end
  return value
end

local scalings = {
  default = function() return nil end,
  linear = function(set) return {type = "linear", factor = number(set, "factor")} end,
  -- transformers takes the length from max_position_embeddings here.
  dynamic = function(set, original, c)
    original = c.max_position_embeddings or original
    return {type = "dynamic", factor = number(set, "factor"), original = original}
  end,
  -- transformers looks at mscale and mscale_all_dim only where both are given and not 0.
  yarn = function(set, original)
    local both = set.mscale and set.mscale_all_dim and set.mscale ~= 0 and set.mscale_all_dim ~= 0
    return {
      type = "yarn", factor = number(set, "factor"), original = original,
      beta_fast = set.beta_fast, beta_slow = set.beta_slow,
      attention_factor = set.attention_factor, mscale = both and set.mscale or nil,
      mscale_all_dim = both and set.mscale_all_dim or nil, truncate = set.truncate,
    }
  end,
  longrope = function(set, original, c)
    return {
      type = "longrope", original = original,
      factor = set.factor or math.max(1, (c.max_position_embeddings or original) / original),
      short = set.short_factor, long = set.long_factor, attention_factor = set.attention_factor,
      short_mscale = set.short_mscale, long_mscale = set.long_mscale,
    }
  end,
  llama3 = function(set, original)
    return {
      type = "llama3", factor = number(set, "factor"), original = original,
      low = number(set, "low_freq_factor"), high = number(set, "high_freq_factor"),
    }
  end,
  proportional = function(set) return {type = "proportional", factor = set.factor} end,
}

-- The frequencies of an odd number of dims, of which one more rotates. nil: the options say it.
local function odd_frequencies(set, dims, base)
  if set.kind ~= "default" and set.kind ~= "linear" then return nil end
  local list, factor = {}, set.kind == "linear" and number(set, "factor") or 1
  for i = 0, dims // 2 do list[i + 1] = base ^ (-2 * i / dims) / factor end
  return list
end

--- The options of attune.position("rope", ..) of a set.
---@param set table one of rope_config.sets
---@param c table max_position_embeddings, original_max_position_embeddings
---@param head_dim integer
---@param defaults? {theta?: number, partial?: number, pairing?: string, dims?: integer,
---  rounds_up?: boolean} rounds_up: of an odd number of dims, one more rotates
---@return table? nil: a part of less than a pair of dims, so that the head does not rotate
function rope_config.options(set, c, head_dim, defaults)
  defaults = defaults or {}
  local original = set.original_max_position_embeddings or c.original_max_position_embeddings
    or c.max_position_embeddings
  -- Models that rotate whole heads do not read the part, but for the kinds that are about it.
  local partial = defaults.partial and (set.partial or defaults.partial)
    or set.kind ~= "default" and set.partial or 1
  local dims = defaults.dims or math.floor(head_dim * partial)
  local base, scaling = set.theta or defaults.theta or 10000, scalings[set.kind](set, original, c)
  local inv_freq
  if set.kind == "proportional" then
    dims = dims - dims % 2
    if dims == 0 then return nil end
  elseif dims % 2 == 1 and defaults.rounds_up then
    inv_freq = odd_frequencies(set, dims, base)
    if inv_freq then dims, scaling = dims + 1, nil end
  end
  return {
    head_dim = head_dim, base = base, dims = dims, pairing = defaults.pairing or "half",
    scaling = scaling, inv_freq = inv_freq,
  }
end

return rope_config
