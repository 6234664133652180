--- A small model, its data and the options of train.run, for specs.
local data = require "attune.data"
local nn = require "attune.nn"

local training = {}

training.small = {
  vocab = 16, d_model = 16, layers = 2, heads = 2, kv_heads = 1, d_ff = 32, seed = 5, dropout = 0.1,
}

--- A copy of base with changes.
function training.with(changes, base)
  local o = {}
  for name, value in pairs(base) do o[name] = value end
  for name, value in pairs(changes) do o[name] = value end
  return o
end

function training.copy_task() return data.task("copy", {vocab = 16, tokens = 12, seed = 2}) end

--- Options of six steps.
function training.options(changes)
  return training.with(changes or {}, {
    model = nn.Decoder(training.small), data = training.copy_task(), batch = 8, steps = 6,
    optimizer = {lr = 3e-3, betas = {0.9, 0.95}}, clip = 1, seed = 4, log = false,
    schedule = {kind = "cosine", warmup = 2},
  })
end

--- The values of all parameters.
function training.parameters_of(model)
  local list = {}
  for _, p in ipairs(model:parameters()) do list[#list + 1] = p:tolist() end
  return list
end

return training
