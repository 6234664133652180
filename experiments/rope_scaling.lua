--- What does every scaling of RoPE do beyond the trained length, to the angles and to the spread of
--- attention?
--
-- Training on L0 tokens covers the angles of pair i up to L0 theta_i, or a full rotation. Where a
-- longer context takes a pair beyond that, the model meets angles that it was not trained on. Where
-- scaling brings the angles of neighbours together, the model must resolve finer steps.
-- docs/positions.md has the formulas of linear (position interpolation: Chen et al. 2023, arXiv
-- 2306.15595), ntk and dynamic (bloc97 and emozilla 2023), yarn (Peng et al. 2023, arXiv
-- 2309.00071), longrope (Ding et al. 2024, arXiv 2402.13753) and llama3 (arXiv 2407.21783). The
-- spread is that of the last query's attention over keys that equal the query (q and k are
-- constant), so that positions alone decide:
--   spread = exp(entropy): the number of keys of a uniform distribution with the same entropy
-- For an experiment of your own add a line to `scalings`.
local attune = require "attune"

local head_dim, original, factor = 64, 2048, 8
local pair_count, full_rotation = head_dim // 2, 2 * math.pi

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
  if scaling then
    local own = scaling
    scaling = {type = name, factor = factor, original = original, length = context}
    for k, v in pairs(own) do scaling[k] = v end
  end
  return attune.position("rope", {head_dim = head_dim, scaling = scaling})
end

-- The percentage of all angles, over all pairs, beyond the trained ones; the last angle of the
-- slowest pair divided by its last in training; the min step between neighbours divided by that in
-- training.
local function angles(pe, context)
  local theta, trained = pe.inv_freq:tolist(), encoding("none", 1).inv_freq:tolist()
  local untrained, step = 0, math.huge
  for i = 1, pair_count do
    local reach = math.min(full_rotation, context * theta[i])
    local trained_reach = math.min(full_rotation, original * trained[i])
    untrained = untrained + math.max(0, reach - trained_reach) / full_rotation / pair_count
    -- Only pairs that rotated 32 times or more in training distinguish neighbours.
    if original * trained[i] > 32 * full_rotation then
      step = math.min(step, theta[i] / trained[i])
    end
  end
  return 100 * untrained, context * theta[pair_count] / (original * trained[pair_count]), step
end

local function spread(pe, context)
  local q, k = attune.ones {1, 1, 1, head_dim}, attune.ones {1, 1, context, head_dim}
  local _, _, about = attune.attention(q, k, k, {
    causal = true, rotate = pe, summaries = {"entropy"},
  })
  return math.exp(about.entropy:item())
end

-- The metric's value for each scaling at factor times the trained length.
local function beyond(r, metric)
  local there = r:where {context = factor * original}
  return function(scaling) return there:where {scaling = scaling}:values(metric)[1] end
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
      unit = "%", better = "lower",
      about = "percentage of the angles, over all pairs, beyond those of training",
    },
    slowest = {
      better = "lower", about = "last angle of the slowest pair, divided by its last in training",
    },
    step = {
      better = "higher",
      about = "min angle between neighbours, divided by that in training, of the pairs "
        .. "that rotated 32 times or more",
    },
    spread = {
      unit = "tokens", about = "exp(entropy) of the last query's attention over keys equal to it",
    },
  },
  trial = function(p)
    local pe = encoding(p.scaling, p.context)
    local untrained, slowest, step = angles(pe, p.context)
    return {untrained = untrained, slowest = slowest, step = step, spread = spread(pe, p.context)}
  end,
  plots = {
    {kind = "heat", name = "untrained",
      title = "Angles beyond those of training on 2048 tokens, factor 8", x = "context",
      y = "scaling", value = "untrained",
      caption = "Linear, YaRN and Llama 3 stay within the trained angles up to factor times the "
        .. "trained length; dynamic stays within them beyond that too."},
    {kind = "line", name = "step",
      title = "Angle between neighbours, divided by that in training, fast pairs", x = "context",
      y = "step", by = "scaling", log = "xy", order = order, lines = {
        {x = original, text = "trained length"},
      },
      caption = "Linear scaling divides the angle between neighbours by 8; YaRN and Llama 3 do not "
        .. "change the pairs that distinguish neighbours."},
    {kind = "line", name = "spread", title = "Tokens that the last query attends to", x = "context",
      y = "spread", by = "scaling", log = "xy", order = order, lines = {
        {x = original, text = "trained length"},
      },
      caption = "YaRN's and LongRoPE's factor on cosines and sines sharpens attention."},
  },
  claims = {
    {"Without scaling, untrained angles occur beyond "
      .. "the trained length, and none within it", function(r)
      local function untrained(context)
        return r:where {scaling = "none", context = context}:values "untrained"[1]
      end
      local within, twice, far = untrained(2048), untrained(4096), untrained(16384)
      return within == 0 and twice > 1 and far > twice,
        ("%.1f%% at 4096 tokens, %.1f%% at 16384"):format(twice, far)
    end},
    {"At factor times the trained length every scaling keeps the slowest pair within its "
      .. "trained angles", function(r)
      local slowest, max = beyond(r, "slowest"), 0
      for name in pairs(scalings) do max = math.max(max, slowest(name)) end
      return max < 1 + 1e-9, ("at most %.3f of the last trained angle"):format(max)
    end},
    {"At factor times the trained length linear scaling stays within the trained angles, YaRN and "
      .. "Llama 3 except for 2%; dynamic leaves less than half of them", function(r)
      local u = beyond(r, "untrained")
      return u "linear" < 1e-9 and u "dynamic" < u "none" / 2 and u "yarn" < 2 and u "llama3" < 2,
        ("linear %.1f%%, dynamic %.1f%%, yarn %.1f%%, llama3 %.1f%%, none %.1f%%"):format(
          u "linear", u "dynamic", u "yarn", u "llama3", u "none"
        )
    end},
    {"Only linear scaling divides the fast pairs' angle between neighbours by the whole "
      .. "factor; YaRN and Llama 3 leave it", function(r)
      local s = beyond(r, "step")
      local good = math.abs(s "linear" - 1 / factor) < 1e-9 and s "yarn" > 0.9 and s "llama3" > 0.9
      for _, name in ipairs {"ntk", "dynamic", "longrope"} do
        good = good and s(name) > 1.01 / factor
      end
      return good, ("linear %.3f, ntk %.3f, dynamic %.3f, longrope %.3f, yarn %.3f, llama3 %.3f")
        :format(s "linear", s "ntk", s "dynamic", s "longrope", s "yarn", s "llama3")
    end},
    {"At factor times the trained length YaRN "
      .. "attends to fewer tokens than linear scaling", function(r)
      local s = beyond(r, "spread")
      return s "yarn" < s "linear",
        ("%.0f and %.0f tokens; without scaling %.0f"):format(s "yarn", s "linear", s "none")
    end},
  },
}
