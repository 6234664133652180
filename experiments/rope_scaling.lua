--- What does every scaling of RoPE do beyond the trained length, to the angles and to the spread of
--- attention?
--
-- Training on L0 tokens covers the angles of pair i up to L0 theta_i, or a full rotation. Where a
-- longer context takes a pair beyond that, the model meets angles that it was not trained on. Where
-- scaling brings the angles of neighbours together, the model must resolve finer steps.
-- docs/positions.md has the formulas. The spread is that of the last query's attention over keys
-- that equal the query (q and k are constant), so that positions alone decide:
--   spread = exp(entropy): the number of keys of a uniform distribution with the same entropy
-- For an experiment of your own add a line to `scalings`.
local attune = require "attune"

local head_dim, original, factor, sharpness = 64, 2048, 8, 1
local pair_count = head_dim // 2

-- LongRoPE's lists are found by a search for each model. A ramp from 1 to the factor is used here.
local short, long = {}, {}
for i = 1, pair_count do short[i], long[i] = 1, 1 + (factor - 1) * (i - 1) / (pair_count - 1) end

local scalings = {
  linear = {},
  ntk = {},
  dynamic = {},
  yarn = {},
  longrope = {short = short, long = long},
  llama3 = {},
}
local order = {"none", "linear", "ntk", "dynamic", "yarn", "longrope", "llama3"}

local function encoding(name, context)
  local scaling = scalings[name]
  if not scaling then return attune.position("rope", {head_dim = head_dim}) end
  local all = {type = name, factor = factor, original = original, length = context}
  for k, v in pairs(scaling) do all[k] = v end
  return attune.position("rope", {head_dim = head_dim, scaling = all})
end

-- The fraction of all angles, over all pairs, beyond the trained ones; the slowest pair's last
-- angle divided by its last in training; the min step between neighbours divided by that in
-- training.
local function angles(pe, context)
  local theta = pe.inv_freq:tolist()
  local trained = encoding("none", 1).inv_freq:tolist()
  local untrained = 0
  local full_rotation = 2 * math.pi
  local step = math.huge
  for i = 1, pair_count do
    local reach = math.min(full_rotation, context * theta[i])
    local trained_angle = math.min(full_rotation, original * trained[i])
    untrained = untrained + math.max(0, reach - trained_angle) / full_rotation / pair_count
    -- Only pairs that rotated 32 times or more in training distinguish neighbours.
    if original * trained[i] > 32 * full_rotation then
      step = math.min(step, theta[i] / trained[i])
    end
  end
  return untrained, context * theta[pair_count] / (original * trained[pair_count]), step
end

local function spread(pe, context)
  local q = attune.full({1, 1, 1, head_dim}, sharpness ^ 0.5)
  local k = attune.full({1, 1, context, head_dim}, sharpness ^ 0.5)
  local w = attune.attention_weights(q, k, {causal = true, rotate = pe}):to "f64"
  return math.exp(-(w * (w + 1e-300):log()):sum():item())
end

return require "attune.experiment" {
  name = "rope_scaling",
  about = "What does every scaling of RoPE do to the angles and to the spread of "
    .. "attention beyond the trained length?",
  fixed = {original = original, factor = factor},
  grid = {scaling = order, context = {512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072}},
  quick = {context = {1024, 2048, 4096, 8192, 16384, 32768}},
  order = {"scaling", "context"},
  timing = false,
  rounds = 1,
  metrics = {
    untrained = {
      better = "lower",
      about = "fraction of the angles, over all pairs, beyond those of training",
    },
    slowest = {about = "last angle of the slowest pair, divided by its last in training"},
    step = {
      better = "higher",
      about = "min angle between neighbours, divided by that in training, of the pairs "
        .. "that rotated 32 times or more",
    },
    spread = {about = "exp(entropy) of the last query's attention over keys equal to it"},
  },
  trial = function(p)
    local pe = encoding(p.scaling, p.context)
    local untrained, slowest, step = angles(pe, p.context)
    return {untrained = untrained, slowest = slowest, step = step, spread = spread(pe, p.context)}
  end,
  plots = {
    {kind = "line", name = "untrained",
      title = "Fraction of angles beyond training on 2048 tokens, factor 8", x = "context",
      y = "untrained", by = "scaling", log = "x", order = order,
      caption = "Linear, YaRN and Llama 3 stay within the trained angles up to factor times the "
        .. "trained length; dynamic stays within them beyond that too."},
    {kind = "line", name = "slowest",
      title = "Last angle of the slowest pair, divided by that in training",
      x = "context", y = "slowest",
      by = "scaling", log = "xy", order = order,
      caption = "Above 1 the pair meets new angles."},
    {kind = "line", name = "step",
      title = "Angle between neighbours, divided by that in training, fast pairs", x = "context",
      y = "step", by = "scaling", log = "x", order = order,
      caption = "Linear scaling divides the angle between neighbours by 8; YaRN and Llama 3 do not "
        .. "change the pairs that distinguish neighbours."},
    {kind = "line", name = "spread", title = "Tokens that the last query attends to", x = "context",
      y = "spread", by = "scaling", log = "xy", order = order,
      caption = "YaRN's and LongRoPE's factor on cosines and sines sharpens attention."},
  },
  claims = {
    {"Without scaling, untrained angles occur beyond "
      .. "the trained length, and none within it", function(r)
      local function untrained(context)
        return r:where {scaling = "none", context = context}:values "untrained"[1]
      end
      return untrained(2048) == 0
        and untrained(4096) > 0.01 and untrained(16384) > untrained(4096),
        ("%.3f at 4096, %.3f at 16384"):format(untrained(4096), untrained(16384))
    end},
    {"At factor times the trained length linear scaling stays within the trained angles, YaRN and "
      .. "Llama 3 except for 2%; dynamic leaves less than half of them", function(r)
      local function untrained(scaling)
        return r:where {scaling = scaling, context = 16384}:values "untrained"[1]
      end
      return untrained "linear" < 1e-9
        and untrained "dynamic" < untrained "none" / 2 and untrained "yarn" < 0.02
        and untrained "llama3" < 0.02,
        ("linear %.3f, dynamic %.3f, yarn %.3f, llama3 %.3f, none %.3f"):format(
          untrained "linear", untrained "dynamic", untrained "yarn", untrained "llama3",
          untrained "none"
        )
    end},
    {"Only linear scaling divides the fast pairs' angle between neighbours by the whole "
      .. "factor; YaRN and Llama 3 leave it", function(r)
      local function step(scaling)
        return r:where {scaling = scaling, context = 16384}:values "step"[1]
      end
      return math.abs(step "linear" - 1 / factor) < 1e-9
        and step "yarn" > 0.9 and step "llama3" > 0.9,
        ("linear %.3f, ntk %.3f, yarn %.3f, llama3 %.3f"):format(
          step "linear", step "ntk", step "yarn", step "llama3"
        )
    end},
    {"At factor times the trained length YaRN "
      .. "attends to fewer tokens than linear scaling", function(r)
      local function at(scaling)
        return r:where {scaling = scaling, context = 16384}:values "spread"[1]
      end
      return at "yarn" < at "linear",
        ("%.0f and %.0f tokens; without scaling %.0f"):format(at "yarn", at "linear", at "none")
    end},
  },
}
