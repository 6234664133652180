--- One decoding step by the roofline (Williams et al. 2009): each part of a step takes at least
---   max(bytes / bandwidth, FLOPs / peak)
-- and parts run one after another. A step gives every sequence of the batch one token. It reads the
-- weights once, and the keys and values of every sequence. Communication between chips, launches,
-- activations and the embedding's rows are left out, so that a real step takes longer.
local cache = require "attune.model.cache"
local hardware = require "attune.model.hardware"
local numbers = require "attune.model.numbers"
local options = require "attune.util.options"
local parts = require "attune.model.parts"

local roofline = {}

-- Bytes per weight; block formats hold 32 weights with their scales.
local weight_bytes = {
  f32 = 4, bf16 = 2, f16 = 2, i8 = 1, q8_0 = 34 / 32, q4_0 = 18 / 32, q4_1 = 20 / 32,
  q5_0 = 22 / 32, q5_1 = 24 / 32,
}
roofline.weights = weight_bytes

---@class attune.model.StepPart
---@field name string "attention", "keys and values", "mlp" or "head"
---@field bytes number read by one chip
---@field flops number of one chip
---@field seconds number
---@field bound "memory"|"arithmetic"

---@class attune.model.Step
---@field seconds number of one step: the time between two tokens of a sequence
---@field tokens_per_second number of all sequences together
---@field parts attune.model.StepPart[]
---@field memory {weights: number, cache: integer, total: number, available: integer}
---@field fits boolean
---@field max_batch integer sequences of this context that fit beside the weights
---@field longest_context number tokens that fit beside the weights at this batch
---@field prompt_seconds number a prompt of `context` tokens for every sequence, at the peak, with
---  the logits of its last token
---@field hardware attune.model.Hardware

--- The options of a step that do not concern sizes.
function roofline.read(o, level)
  level = level + 1
  local chip = o.hardware
  if type(chip) == "string" then
    chip = hardware.get(chip, level)
  else
    chip = options.read(chip, {"name", "title", "memory", "bandwidth", "flops", "f32", "source"},
      level, "hardware", "such as {memory = 80e9, bandwidth = 2e12, flops = 300e12} or a name")
    numbers.integer(chip, "memory", nil, 1, level)
    for _, name in ipairs {"bandwidth", "flops", chip.f32 ~= nil and "f32" or nil} do
      numbers.number(chip, name, nil, 0, math.huge, level)
    end
    for _, name in ipairs {"name", "title", "source"} do
      if chip[name] ~= nil and type(chip[name]) ~= "string" then
        error(("%s: expected a text, got %s"):format(name, options.describe(chip[name])), level)
      end
    end
  end
  return {
    hardware = chip,
    weights = numbers.choice(o, "weights", "bf16", weight_bytes, level),
    chips = numbers.integer(o, "chips", 1, 1, level),
    sharding = numbers.choice(o, "sharding", "heads", cache.shardings, level),
  }
end

local function part_of(plan, name, bytes, flops)
  local chip = plan.hardware
  local peak = plan.weights == "f32" and chip.f32 or chip.flops
  local reading, computing = bytes / chip.bandwidth, flops / peak
  return {
    name = name, bytes = bytes, flops = flops, seconds = math.max(reading, computing),
    bound = reading >= computing and "memory" or "arithmetic",
  }
end

local function step_parts(cfg, plan, level)
  local per_weight = weight_bytes[plan.weights]
  local sizes = {
    context = plan.context, source = plan.source, batch = plan.batch, dtype = plan.cache,
  }
  local kv = cache.per_chip(cfg, sizes, plan, level + 1)
  local keys = parts.visible(cfg, plan.context)
  if cfg.kind == "encoder-decoder" then keys = keys + plan.source end
  local list = {}
  for _, part in ipairs(parts.read_weights(cfg, plan.batch)) do
    local used = part.weights
    if part.name == "mlp" then used = parts.list(cfg, 1, 1, level + 1)[3].flops / 2 end
    list[#list + 1] = part_of(plan, part.name, part.weights * per_weight / plan.chips,
      2.0 * used * plan.batch / plan.chips)
    if part.name == "attention" then
      -- Every chip has the query heads of all rows divided, or all heads of its own rows.
      local rows = plan.sharding == "batch" and cache.held_by_chip(cfg, plan.batch, plan)
        or plan.batch / plan.chips
      local flops = parts.over_keys(cfg, keys + 0.0) * rows
      list[#list + 1] = part_of(plan, "keys and values", kv, flops)
    end
  end
  return list, kv
end

-- FLOPs of a prompt: each token attends to itself and those before it, at most the window's; the
-- head is needed for the last token alone.
local function prompt_seconds(cfg, plan, level)
  local n, list = plan.context, parts.list(cfg, 1, plan.source, level + 1)
  local head, one_key = list[#list].flops, parts.over_keys(cfg, 1)
  local w = parts.visible(cfg, n)
  local keys = w * (w + 1.0) / 2 + (n - w) * (w + 0.0)
  local flops = (parts.sum(list, "flops") - head - one_key) * (n + 0.0) + head
    + parts.over_key_of_prompt(cfg) * keys
  local peak = plan.weights == "f32" and plan.hardware.f32 or plan.hardware.flops
  return flops * plan.batch / (peak * plan.chips)
end

-- The largest batch whose caches fit into the room.
local function max_batch(cfg, plan, room, level)
  local sizes = {context = plan.context, source = plan.source, dtype = plan.cache, batch = 1}
  local rows = math.floor(room / cache.per_chip(cfg, sizes, plan, level + 1))
  return math.max(0, plan.sharding == "batch" and rows * plan.chips or rows)
end

---@return attune.model.Step
function roofline.step(cfg, plan, level)
  level = level + 1
  local list, kv = step_parts(cfg, plan, level)
  local parameters = parts.sum(parts.list(cfg, 1, 1, level), "parameters")
  local weights = parameters * weight_bytes[plan.weights] / plan.chips
  local available = plan.hardware.memory
  local room = available - weights
  local longest = 0
  if room > 0 then
    local place = {memory = room, fraction = 1, chips = plan.chips, sharding = plan.sharding}
    local sizes = {batch = plan.batch, dtype = plan.cache, source = plan.source}
    longest = cache.longest(cfg, sizes, place, level)
  end
  local seconds = 0
  for _, part in ipairs(list) do seconds = seconds + part.seconds end
  return {
    seconds = seconds,
    tokens_per_second = plan.batch / seconds,
    parts = list,
    memory = {weights = weights, cache = kv, total = weights + kv, available = available},
    fits = weights + kv <= available,
    max_batch = room > 0 and max_batch(cfg, plan, room, level) or 0,
    longest_context = longest,
    prompt_seconds = prompt_seconds(cfg, plan, level),
    hardware = plan.hardware,
  }
end

return roofline
