--- Optimisers: AdamW, SGD with momentum, Muon; clipping of gradients; schedules of the rate. See
--- docs/training.md.
local core = require "attune.core"
local Optimizer = require "attune.optim.optimizer"
local options = require "attune.util.options"
local parameters = require "attune.optim.parameters"

local number = parameters.number

local optim = {schedule = require "attune.optim.schedule"}

-- ---- AdamW ------------------------------------------------------------------------------------

local function adamw_options(o)
  local betas = o.betas or {0.9, 0.999}
  if type(betas) ~= "table" or rawlen(betas) ~= 2 then
    core._raise(("betas: expected two numbers, such as {0.9, 0.95}, got %s"):format(
      options.describe(betas)))
  end
  local list = {beta1 = rawget(betas, 1), beta2 = rawget(betas, 2)}
  return {
    beta1 = number(list, "beta1", 0.9, 1), beta2 = number(list, "beta2", 0.999, 1),
    eps = number(o, "eps", 1e-8),
  }
end

local function adamw_step(a, self, p, gradient, lr)
  core._adamw(
    p.tensor, gradient, p.moments.m, p.moments.v, lr, a.beta1, a.beta2, a.eps, p.weight_decay,
    self.steps
  )
end

--- AdamW: Loshchilov and Hutter 2019 (arXiv 1711.05101). Tensors of two axes or more decay.
---@param given table model:parameters(), {name = tensor}, or a list of tensors; each tensor once,
--- in f32 or f64, and it requires gradients
---@param o? {lr: number, betas: number[], eps: number, weight_decay: number, groups: table[]}
--- 1e-3, {0.9, 0.999}, 1e-8, 0.01; groups = {{match = "embed", weight_decay = 0, lr_factor = 0.1}}
---@return attune.Optimizer
function optim.adamw(given, o)
  o = options.read(o, {"lr", "betas", "eps", "weight_decay", "groups"}, 2)
  local a = adamw_options(o)
  local list = parameters.grouped(
    parameters.trainable(given), number(o, "weight_decay", 0.01), o.groups)
  return Optimizer.new("adamw", list, number(o, "lr", 1e-3), {"m", "v"}, function(...)
    adamw_step(a, ...)
  end)
end

-- ---- SGD --------------------------------------------------------------------------------------

--- Stochastic gradient descent with momentum; weight decay is added to the gradient.
---@param given table
---@param o? {lr: number, momentum: number, nesterov: boolean, weight_decay: number,
--- groups: table[]} 1e-2, 0.9, false, 0
---@return attune.Optimizer
function optim.sgd(given, o)
  o = options.read(o, {"lr", "momentum", "nesterov", "weight_decay", "groups"}, 2)
  local momentum = number(o, "momentum", 0.9, 1)
  local nesterov = o.nesterov or false
  local list = parameters.grouped(
    parameters.trainable(given), number(o, "weight_decay", 0), o.groups)
  return Optimizer.new("sgd", list, number(o, "lr", 1e-2), momentum > 0 and {"m"} or {},
    function(_, p, gradient, lr)
      core._sgd(p.tensor, gradient, p.moments.m, lr, momentum, p.weight_decay, nesterov)
    end)
end

-- ---- Muon -------------------------------------------------------------------------------------

-- Whether a part of a parameter's name says that the parameter is looked up or makes logits.
local function is_table_or_head(part)
  return part:find "embed" or part:find "^position" or part:find "^heads?%d*$"
    or part:find "_head$"
end

-- Matrices are of hidden layers, unless their name, or that of a module around them, says that they
-- are not: "embed.weight", "decoder.embed.weight", "position.table", "lm_head.weight".
local function is_hidden(p)
  if #p.tensor.shape ~= 2 then return false end
  for part in p.name:gmatch "[^.]+" do
    if is_table_or_head(part) then return false end
  end
  return true
end

--- Muon for the matrices of hidden layers, AdamW for other parameters: Jordan et al. 2024. Names
--- tell embeddings, tables of positions and heads: a part between dots contains "embed", begins
--- with "position", is "head" or ends with "_head". `muon` of a group decides for other names, and
--- for a list, which has none. A schedule that sets lr changes the rate of both in proportion.
---@param given table
---@param o? {lr: number, momentum: number, nesterov: boolean, weight_decay: number,
--- iterations: integer, adamw: table, groups: table[]} 0.02, 0.95, true, 0.01, 5; adamw: the
--- options of optim.adamw for the others, whose lr is 1e-3; groups = {{match = "^wte", muon =
--- false}}
---@return attune.Optimizer
function optim.muon(given, o)
  o = options.read(
    o, {"lr", "momentum", "nesterov", "weight_decay", "iterations", "adamw", "groups"}, 2)
  local other = options.read(o.adamw, {"lr", "betas", "eps", "weight_decay"}, 2, "adamw")
  local a = adamw_options(other)
  local lr, momentum = number(o, "lr", 0.02), number(o, "momentum", 0.95, 1)
  local nesterov = o.nesterov ~= false
  local iterations = o.iterations or 5
  if math.type(iterations) ~= "integer" or iterations < 1 or iterations > 100 then
    core._raise(("iterations: expected an integer from 1 to 100, got %s"):format(
      options.describe(iterations)))
  end
  if lr == 0 then core._raise "lr: expected a number above 0, got 0" end
  local decay, other_decay = number(o, "weight_decay", 0.01), number(other, "weight_decay", 0.01)
  local ratio = number(other, "lr", 1e-3) / lr
  local list = parameters.grouped(parameters.trainable(given), decay, o.groups, {muon = "boolean"})
  for _, p in ipairs(list) do
    local chosen = p.group.muon
    if chosen and #p.tensor.shape ~= 2 then
      core._raise(("groups: expected matrices where muon = true, got a %s as '%s'"):format(
        options.describe(p.tensor), p.name))
    end
    if chosen == nil then p.hidden = is_hidden(p) else p.hidden = chosen end
    if not p.hidden then
      p.lr_factor = p.lr_factor * ratio
      p.weight_decay = parameters.decay_of(p, other_decay)
    end
  end
  local function moments(p) return p.hidden and {"m"} or {"m", "v"} end
  return Optimizer.new("muon", list, lr, moments, function(self, p, gradient, rate)
    if not p.hidden then return adamw_step(a, self, p, gradient, rate) end
    core._muon(
      p.tensor, gradient, p.moments.m, rate, momentum, p.weight_decay, nesterov, iterations)
  end)
end

-- ---- clipping ---------------------------------------------------------------------------------

--- Scales all gradients so that their norm over all parameters is at most max; Pascanu et al. 2013
--- (arXiv 1211.5063). The norm is summed in the order of names, so it has the same bits for any
--- number of threads. Gradients of a norm that is not finite stay as they are.
---@param given table as of optim.adamw
---@param max? number none: nothing is scaled
---@return number norm before
function optim.clip(given, max)
  if max ~= nil and (type(max) ~= "number" or not (max > 0)) then
    core._raise(("max: expected a number above 0, got %s"):format(options.describe(max)))
  end
  local sum, gradients = 0, {}
  for _, p in ipairs(parameters.list(given)) do
    local gradient = p.tensor.grad
    if gradient then
      sum = sum + core._sum_of_squares(gradient)
      gradients[#gradients + 1] = gradient
    end
  end
  local norm = math.sqrt(sum)
  if max and norm > max and norm < math.huge then
    for _, gradient in ipairs(gradients) do core._scale(gradient, max / (norm + 1e-6)) end
  end
  return norm
end

return optim
