--- Counting parameters and floating-point operations.
local core = require "attune.core"
local config = require "attune.nn.config"
local module = require "attune.nn.module"
local options = require "attune.util.options"
local parameter = require "attune.nn.parameter"

-- The visible keys of a query on average in a full context: half of them where attention is
-- causal, fewer with a window of {left, right} tokens; -1 is no limit.
local function visible_tokens(c, context)
  if c.linear then return c.linear.total or c.head_dim end
  local left, right = math.huge, math.huge
  if type(c.window) == "table" then
    left, right = c.window[1], c.window[2]
  elseif c.window then
    left, right = c.window - 1, c.window - 1
  end
  if left < 0 then left = math.huge end
  if right < 0 then right = math.huge end
  if c.causal then return math.min(context / 2, left + 1) end
  return math.min(context, left + 1 + right)
end

-- The operations of the scores and of their weighted sums, per token: 2 heads (head_dim +
-- v_head_dim) per visible token.
local function attention_operations(c)
  local operations = 0
  for _, layer in ipairs(config.layers(c)) do
    local per_token = 2 * layer.heads * (layer.head_dim + layer.v_head_dim)
    local visible = visible_tokens(layer, c.context)
    if layer.cross then visible = visible + c.context end
    operations = operations + per_token * visible
  end
  return operations
end

-- The shape of a parameter, made or only counted; else nil.
local function shape_of(x)
  if core._kind(x) == "tensor" then
    local node = core._node(x)
    return node and node.leaf and x.shape
  end
  return parameter.is_counted(x) and x.shape or nil
end

local function is_searched(x)
  return module.is_module(x) or type(x) == "table" and getmetatable(x) == nil
end

-- The operations per token of the modules of x: two per weight of a matrix, where it is multiplied.
-- Embeddings and tables of positions are looked up; a tied embedding is also the head.
local function operations_of(x, seen)
  seen[x] = true
  local sum = 0
  for _, key in ipairs(module.member_keys(x)) do
    local value = rawget(x, key)
    local shape = shape_of(value)
    if shape then
      if #shape == 2 and not x._is_looked_up then sum = sum + 2 * shape[1] * shape[2] end
    elseif is_searched(value) and not seen[value] then
      sum = sum + operations_of(value, seen)
    end
  end
  if x._is_decoder then
    local c = x._c
    if c.tied and not x._is_encoder then sum = sum + 2 * c.vocab * c.d_model end
    if c.context then sum = sum + attention_operations(c) end
  end
  return sum
end

local function count_module(x)
  local parameters = 0
  for _, tensor in pairs(x:parameters()) do
    local elements = 1
    for _, extent in ipairs(tensor.shape) do elements = elements * extent end
    parameters = parameters + elements
  end
  return parameters, math.floor(operations_of(x, {}))
end

local restoring = {__close = function(state) core._seeds(state[1], state[2]) end}

-- A function of the user is really called: its modules may do with their tensors what they like.
-- Draws of random numbers go on as if it had not been called.
local function count_made(make)
  local _ <close> = setmetatable({core._seeds()}, restoring)
  local made = core._call(function() return make() end)
  if not module.is_module(made) then
    core._raise(("cfg: expected a function that returns a module, got one that returns %s"):format(
      options.describe(made)))
  end
  return count_module(made)
end

--- The number of parameters of a configuration of nn.Decoder or, with encoder_layers, of
--- nn.EncoderDecoder, for which nothing is allocated; of a module; or of the module that a function
--- or a class of nn.module makes. A tensor that is used twice counts once.
---@param cfg table|function
---@return integer parameters
---@return integer flops of a forward pass per token (with an encoder: per token of each half): two
--- per weight of a matrix where it is multiplied, and for a Decoder with `context` those of
--- attention over a full context
return function(cfg)
  -- A class of nn.module is its own __index: it makes a module, too.
  local is_class = type(cfg) == "table" and rawequal(rawget(cfg, "__index"), cfg)
  if is_class or type(cfg) == "function" then return count_made(cfg) end
  if type(cfg) ~= "table" then
    core._raise(("cfg: expected the options of a model, a module or a function, got %s"):format(
      options.describe(cfg)))
  end
  if module.is_module(cfg) then return count_module(cfg) end
  local class = rawget(cfg, "encoder_layers") and "attune.nn.encoder_decoder" or "attune.nn.decoder"
  local parameters, made = parameter.count(require(class), cfg)
  return parameters, math.floor(operations_of(made, {}))
end
