--- Mixtures of experts: a router gives each token a few experts and their weights, and each expert
--- runs on its tokens.
local attune = require "attune"
local core = require "attune.core"
local layers = require "attune.model.network.layers"

local experts = {}

-- The n largest of a list by a key, as a list of indices; of equal ones the first.
local function largest(count, n, key)
  local order = {}
  for i = 1, count do order[i] = i end
  table.sort(order, function(a, b)
    local x, y = key(a), key(b)
    if x ~= y then return x > y end
    return a < b
  end)
  return table.move(order, 1, n, 1, {})
end

-- Which experts may be chosen, where only some groups of them take part (DeepSeek). A group counts
-- as the sum of its `best` largest scores.
local function allowed(scores, router)
  local groups = router.groups or 1
  if groups == 1 then return nil end
  local size = #scores // groups
  local totals = {}
  for g = 1, groups do
    local first = (g - 1) * size
    local best = largest(size, router.group_best, function(i) return scores[first + i] end)
    totals[g] = 0
    for _, i in ipairs(best) do totals[g] = totals[g] + scores[first + i] end
  end
  local is_allowed = {}
  for _, g in ipairs(largest(groups, router.group_top, function(g) return totals[g] end)) do
    for i = 1, size do is_allowed[(g - 1) * size + i] = true end
  end
  return is_allowed
end

-- The experts of one token and their weights, from the router's logits.
local function choose(logits, router)
  local n, scores, choice = #logits, {}, {}
  if router.scores == "sigmoid" then
    for i = 1, n do scores[i] = 1 / (1 + math.exp(-logits[i])) end
  elseif router.scores == "softmax" then
    local max, sum = math.max(table.unpack(logits)), 0
    for i = 1, n do
      scores[i] = math.exp(logits[i] - max)
      sum = sum + scores[i]
    end
    for i = 1, n do scores[i] = scores[i] / sum end
  else
    scores = logits
  end
  for i = 1, n do choice[i] = scores[i] + (router.correction and router.correction[i] or 0) end
  local is_allowed = allowed(choice, router)
  local function key(i) return is_allowed and not is_allowed[i] and -math.huge or choice[i] end
  local chosen, weights, sum = largest(n, router.top, key), {}, 0
  if router.scores == "logits" then -- the softmax is over the chosen ones
    local max = logits[chosen[1]]
    for i, e in ipairs(chosen) do weights[i] = math.exp(logits[e] - max) end
  else
    for i, e in ipairs(chosen) do weights[i] = scores[e] end
  end
  for _, weight in ipairs(weights) do sum = sum + weight end
  local normalised = router.normalised or router.scores == "logits"
  for i, weight in ipairs(weights) do
    weights[i] = (normalised and weight / (sum + (router.epsilon or 0)) or weight)
      * (router.factor or 1)
  end
  return chosen, weights
end

--- A mixture.
---@param w table weights
---@param spec table {router = {linear, top, scores, ..}, expert = list of mlp specs, shared = mlp
---  spec}; make = function(w, e): an expert of another form, with run(x)
function experts.new(w, spec)
  local mixture = {router = spec.router, list = {}}
  mixture.gate = layers.linear(w, spec.router.linear)
  if spec.router.correction_name then
    local n = spec.router.linear.outputs
    mixture.router.correction = w:get(spec.router.correction_name, {n}):tolist()
  end
  for e, expert in ipairs(spec.experts or {}) do
    local mlp = layers.mlp(w, expert)
    mixture.list[e] = function(x) return layers.run_mlp(mlp, x) end
  end
  if spec.make then mixture.list = spec.make(w) end
  mixture.shared = spec.shared and layers.mlp(w, spec.shared)
  return mixture
end

--- x [tokens, width] -> [tokens, width].
function experts.run(mixture, x)
  local logits = layers.apply(mixture.gate, x):tolist()
  local tokens, weights = {}, {}
  for t, row in ipairs(logits) do
    local chosen, of = choose(row, mixture.router)
    for i, e in ipairs(chosen) do
      tokens[e], weights[e] = tokens[e] or {}, weights[e] or {}
      table.insert(tokens[e], t - 1)
      table.insert(weights[e], of[i])
    end
  end
  local sum = attune.zeros(x.shape)
  for e = 1, #mixture.list do
    if tokens[e] then
      local rows = core._embedding(x, tokens[e])
      core._add_rows(sum, mixture.list[e](rows), tokens[e], weights[e])
    end
  end
  if mixture.shared then sum = sum + layers.run_mlp(mixture.shared, x) end
  return sum
end

return experts
