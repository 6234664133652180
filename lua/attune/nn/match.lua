--- Counting parameters and floating-point operations, and making two models of equal counts.
local core = require "attune.core"
local options = require "attune.util.options"
local parameter = require "attune.nn.parameter"
local module = require "attune.nn.module"

local match = {}

-- A model made from a configuration, or what the user's function makes.
local function maker_of(cfg)
  if type(cfg) == "function" then return cfg end
  local encoders = rawget(cfg, "encoder_layers")
  local nn = require "attune.nn.decoder"
  if not encoders then return function() return nn(cfg) end end
  return function() return require "attune.nn.encoder_decoder"(cfg) end
end

-- The operations of the scores and of their weighted sums, per token of a context that is full and
-- causal: half of 2 heads (head_dim + v_head_dim) per pair.
local function attention_operations(cfg, context)
  local config = require "attune.nn.config"
  local operations = 0
  for _, c in ipairs(config.layers(config.read(cfg))) do
    local visible = context / 2
    if type(c.window) == "number" then visible = math.min(visible, c.window) end
    if c.linear then visible = c.linear.total or c.head_dim end
    operations = operations + 2 * c.heads * (c.head_dim + c.v_head_dim) * visible
  end
  return operations
end

--- The number of parameters of a configuration of nn.Decoder, of a module, or of the module that a
--- function makes; nothing is allocated for a configuration.
---@param cfg table|function
---@return integer parameters
---@return integer flops of a forward pass per token: two per weight of a matrix that is multiplied,
--- and for a configuration with `context` those of attention
function match.count(cfg)
  if type(cfg) ~= "table" and type(cfg) ~= "function" then
    core._raise(("cfg: expected the options of a model, a module or a function, got %s"):format(
      options.describe(cfg)))
  end
  if module.is_module(cfg) then
    local matrix = 0
    for _, tensor in ipairs(cfg:parameters()) do
      if #tensor.shape == 2 then matrix = matrix + tensor.shape[1] * tensor.shape[2] end
    end
    return cfg:count(), 2 * matrix
  end
  local parameters, matrix = parameter.count(maker_of(cfg))
  local flops = 2 * matrix
  if type(cfg) == "table" then
    -- Embeddings and tables are looked up; a tied embedding is multiplied once, as the head.
    local tied = rawget(cfg, "tied") ~= false
    if not tied then flops = flops - 2 * cfg.vocab * cfg.d_model end
    if cfg.position == "learned" then flops = flops - 2 * cfg.context * cfg.d_model end
    if cfg.context then flops = flops + attention_operations(cfg, cfg.context) end
  end
  return parameters, math.floor(flops)
end

local measures = {
  parameters = function(cfg) return (match.count(cfg)) end,
  flops = function(cfg) return (select(2, match.count(cfg))) end,
}

local function changed(reference, change, name, value)
  local cfg = {}
  for key, x in next, reference do cfg[key] = x end
  for key, x in next, change do cfg[key] = x end
  if value then cfg[name] = value end
  return cfg
end

local limit = 0.005 -- 0.5%

--- A configuration with a change and the count of the reference, made equal by another option: the
--- value of `adjust`, a multiple of `multiple`, whose count is nearest. Raises an error where no
--- value comes within 0.5%. Shazeer 2019 (arXiv 1911.02150), section 4, widens d_ff so.
---@param given {reference: table, change: table, by: "parameters"|"flops", adjust: string,
--- multiple: integer} parameters, d_ff and 1 by default
---@return table cfg a new configuration
function match.match(given)
  local o = options.read(given, {"reference", "change", "by", "adjust", "multiple"}, 2, "options",
    "{reference = cfg, change = {kv_heads = 1}}")
  for _, name in ipairs {"reference", "change"} do
    if type(o[name]) ~= "table" then
      core._raise(("%s: expected a table of options, got %s"):format(
        name, options.describe(o[name])))
    end
  end
  local by, adjust, multiple = o.by or "parameters", o.adjust or "d_ff", o.multiple or 1
  local measure = measures[by]
  if not measure then
    core._raise(("by: expected 'parameters' or 'flops', got %s"):format(options.describe(by)))
  end
  if math.type(multiple) ~= "integer" or multiple < 1 then
    core._raise(("multiple: expected an integer of at least 1, got %s"):format(
      options.describe(multiple)))
  end
  local reference = changed(o.reference, {})
  if reference.d_ff == nil then reference.d_ff = 4 * (reference.d_model or 0) end
  if math.type(reference[adjust]) ~= "integer" then
    core._raise(("adjust: expected the name of an integer option of the reference, got %s = %s")
      :format(options.describe(adjust), options.describe(reference[adjust])))
  end
  -- The reference's own head_dim stays where heads change.
  if not reference.head_dim and reference.heads and reference.d_model then
    reference.head_dim = reference.d_model // reference.heads
  end
  local wanted = measure(reference)
  local function count(k)
    return measure(changed(reference, o.change, adjust, k * multiple))
  end
  -- Counts grow with the option: the smallest multiple that reaches the wanted count.
  local low, high = 1, 1
  while count(high) < wanted do
    low, high = high, high * 2
    if high > 1 << 40 then
      core._raise(("adjust: expected an option that changes the count, got '%s'"):format(adjust))
    end
  end
  while low < high do
    local middle = (low + high) // 2
    if count(middle) < wanted then low = middle + 1 else high = middle end
  end
  local best = high
  if high > 1 and wanted - count(high - 1) < count(high) - wanted then best = high - 1 end
  local off = math.abs(count(best) / wanted - 1)
  if off >= limit then
    core._raise(("match: expected a value of %s within 0.5%% of %d %s, got %.2f%% with %d"):format(
      adjust, wanted, by, 100 * off, best * multiple))
  end
  return changed(reference, o.change, adjust, best * multiple)
end

return match
