--- Schedules of the learning rate: functions from the step, from 1, to the rate.
local core = require "attune.core"
local options = require "attune.util.options"

local shapes = {}

--- The rate stays.
function shapes.constant() return 1 end
--- Falls on a line.
function shapes.linear(x) return 1 - x end
--- Falls along half a cosine: Loshchilov and Hutter 2017 (arXiv 1608.03983).
function shapes.cosine(x) return 0.5 * (1 + math.cos(math.pi * x)) end
--- Stays, and falls on a line over the last part: warm-up, stable, decay (Hu et al. 2024, arXiv
--- 2404.06395).
function shapes.wsd(x, decay)
  if x < 1 - decay then return 1 end
  return decay > 0 and (1 - x) / decay or 0
end

local function number(o, name, default, max)
  local x = o[name]
  if x == nil then x = default end
  if type(x) ~= "number" or not (x >= 0 and x <= max) then
    core._raise(("%s: expected a number from 0 to %g, got %s"):format(
      name, max, options.describe(x)))
  end
  return x
end

--- The rate rises on a line over `warmup` steps, is `lr` at the next one, and then takes the shape
--- until it is `min` after step `steps`.
---@param given {kind: "constant"|"linear"|"cosine"|"wsd", lr: number, steps: integer,
--- warmup: integer, min: number, decay: number} decay: the part of wsd that falls, 0.2
---@return fun(step: integer): number
return function(given)
  local o = options.read(given, {"kind", "lr", "steps", "warmup", "min", "decay"}, 2, "options",
    '{kind = "cosine", lr = 1e-3, steps = 2000, warmup = 100}')
  local kind = o.kind or "cosine"
  local shape = shapes[kind]
  if not shape then
    core._raise(("kind: expected constant, linear, cosine or wsd, got %s"):format(
      options.describe(kind)))
  end
  local lr = number(o, "lr", nil, 1e9)
  if math.type(o.steps) ~= "integer" or o.steps < 1 then
    core._raise(("steps: expected an integer of at least 1, got %s"):format(
      options.describe(o.steps)))
  end
  local warmup, min = number(o, "warmup", 0, o.steps), number(o, "min", 0, lr)
  local decay = number(o, "decay", 0.2, 1)
  return function(step)
    if type(step) ~= "number" or not (step >= 0 and step < math.huge) then
      core._raise(("step: expected a number from 1, got %s"):format(options.describe(step)))
    end
    if step <= warmup then return lr * step / (warmup + 1) end
    local span = o.steps - warmup
    local x = span > 0 and math.min((step - 1 - warmup) / span, 1) or 1
    return min + (lr - min) * shape(x, decay)
  end
end
