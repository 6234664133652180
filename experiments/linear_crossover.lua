--- From which context on is linear attention faster than exact attention, and what accuracy does it
--- lose?
--
-- FAVOR+ (Performer: Choromanski et al. 2021, arXiv 2009.14794) replaces the softmax by M positive
-- random features of each query and key. The operations are
--   exact   4 heads S^2 D, causal half of that
--   FAVOR+  8 heads S D M
-- so the two times are equal at S = 2 M, causal at 4 M, if both run at the same fraction of the
-- machine's peak. Each time is plotted with the time that its operations take at the machine's
-- peak, measured in the same trial. The error is the relative error of o against exact attention,
-- for scores of standard deviation 1 and 1/4: the variance of the features grows exponentially with
-- the scores (lemma 2 of the paper) and falls with 1 / M. For an experiment of your own change a
-- value in `grid` or a shape in `fixed`.
local attune = require "attune"

local function inputs(p, factor)
  local function of(seed)
    return attune.randn({1, p.heads, p.context, p.head_dim}, {seed = p.seed + seed, std = factor})
  end
  return of(1), of(2), attune.randn({1, p.heads, p.context, p.head_dim}, {seed = p.seed + 3})
end

local function operations(p)
  if p.features == 0 then return (p.causal and 2 or 4) * p.heads * p.context ^ 2 * p.head_dim end
  return 8 * p.heads * p.context * p.head_dim * p.features
end

local function root_mean_square(t)
  local square = (t * t):mean()
  return math.sqrt(square:item())
end

-- Relative error against exact attention, for contexts where exact attention is fast.
local function relative_error(p, projection, factor)
  if p.context > 1024 then return nil end
  local q, k, v = inputs(p, factor)
  local exact = attune.attention(q, k, v, {causal = p.causal})
  local o = attune.linear_attention(q, k, v, {causal = p.causal, projection = projection})
  return root_mean_square(o - exact) / root_mean_square(exact)
end

-- The context at which exact attention and FAVOR+ take equal time. Between two measured contexts
-- the logarithm of the ratio is interpolated linearly. nil and a reason where the times are never
-- equal.
local function crossover(r, causal, features)
  local exact = r:where {causal = causal, features = 0}
  local linear = r:where {causal = causal, features = features}
  local ratios = {}
  for _, point in ipairs(linear.points) do
    for _, other in ipairs(exact.points) do
      if other.parameters.context == point.parameters.context
          and point.metrics.seconds and other.metrics.seconds then
        ratios[#ratios + 1] = {
          context = point.parameters.context,
          ratio = other.metrics.seconds.median / point.metrics.seconds.median,
        }
      end
    end
  end
  table.sort(ratios, function(a, b) return a.context < b.context end)
  for i = 1, #ratios - 1 do
    local a, b = ratios[i], ratios[i + 1]
    if a.ratio < 1 and b.ratio >= 1 then
      local fraction = -math.log(a.ratio) / (math.log(b.ratio) - math.log(a.ratio))
      return a.context * (b.context / a.context) ^ fraction
    end
  end
  if #ratios == 0 then return nil, "not measured" end
  return nil,
    ratios[1].ratio >= 1
      and ("below %d"):format(ratios[1].context) or ("above %d"):format(ratios[#ratios].context)
end

local order = {"softmax", "M 64", "M 256", "M 1024"}

return require "attune.experiment" {
  name = "linear_crossover",
  about = "From which context on is FAVOR+ faster than exact attention on this machine, compared "
    .. "with the crossover that operation counts predict, and how large is its error?",
  fixed = {heads = 8, head_dim = 64},
  grid = {
    causal = {false, true},
    features = {0, 64, 256, 1024}, -- 0: exact attention
    context = {256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536},
  },
  derived = {
    method = function(p) return p.features == 0 and "softmax" or ("M %d"):format(p.features) end,
    mask = function(p) return p.causal and "causal" or "all keys" end,
  },
  order = {"mask", "causal", "method", "features", "context"},
  quick = {context = {256, 1024, 4096}, rounds = 3},
  rounds = 3,
  timeout = 600,
  metrics = {
    seconds = {unit = "s", better = "lower", about = "seconds of a call"},
    predicted = {
      unit = "s", better = "lower", about = "its operations divided by this machine's peak",
    },
    token_seconds = {
      unit = "s", better = "lower", about = "seconds of a call, divided by its tokens",
    },
    error = {better = "lower", about = "relative error of o, scores of standard deviation 1"},
    error_small_scores = {
      better = "lower", about = "the same for scores of standard deviation 1/4",
    },
    scratch_bytes = {
      unit = "B",
      better = "lower",
      about = "peak bytes allocated during a call, without inputs and o",
    },
  },
  trial = function(p, t)
    local q, k, v = inputs(p, 1)
    local options = {
      causal = p.causal,
      projection = p.features > 0
        and attune.favor_projection {head_dim = p.head_dim, features = p.features, seed = p.seed}
        or nil,
    }
    local function call()
      return p.features == 0
        and attune.attention(q, k, v, {causal = p.causal})
        or attune.linear_attention(q, k, v, options)
    end
    local long = operations(p) > 2e11
    attune.memory {reset_peak = true}
    local before = attune.memory().bytes
    local o = call()
    local scratch = attune.memory().peak - before - o.nbytes
    local seconds = t:time(function() call():close() end, {
      budget = 0.15, least = long and 1 or 3, warmups = long and 0 or 1,
    })
    local rate = attune.measure.peak(0.02)
    local metrics = {seconds = seconds, predicted = operations(p) / rate, scratch_bytes = scratch}
    local values = {}
    for i, s in ipairs(type(seconds) == "table" and (seconds.samples or seconds) or {seconds}) do
      values[i] = s / p.context
    end
    metrics.token_seconds = values
    if options.projection then
      metrics.error = relative_error(p, options.projection, 1)
      -- Halving q and k divides the scores by 4.
      metrics.error_small_scores = relative_error(p, options.projection, 0.5)
    end
    return metrics
  end,
  plots = {
    {kind = "line", name = "seconds",
      title = "Seconds of a call: exact attention, and FAVOR+ of M features", x = "context",
      y = "seconds", by = "method", facet = "mask", also = "predicted",
      log = "xy", order = order,
      caption = "Dashed: the operations divided by this machine's peak. Dashed lines meet where "
        .. "the context is twice the number of features; causal: four times."},
    {kind = "line", name = "speedup",
      title = "How many times as fast as exact attention FAVOR+ of M features is", x = "context",
      y = "seconds", by = "method", facet = "mask", against = {method = "softmax", features = 0},
      also = "predicted",
      log = "xy", order = order, caption = "Above 1 FAVOR+ is faster."},
    {kind = "line", name = "token",
      title = "Seconds per token: exact attention, and FAVOR+ of M features", x = "context",
      y = "token_seconds", by = "method", facet = "mask", log = "xy", order = order,
      caption = "Constant for FAVOR+, whose time is linear in tokens."},
    {kind = "line", name = "error", title = "Relative error against exact attention, 1024 tokens",
      x = "features", y = "error", by = "mask", also = "error_small_scores",
      where = {context = 1024, features = {64, 256, 1024}}, log = "xy",
      caption = "Scores of standard deviation 1; dashed: 1/4. A line of slope -1/2 is an error "
        .. "that falls with the square root of the number of features."},
  },
  claims = {
    -- With few features the times are equal in short calls, where work outside the products
    -- matters.
    {"From 256 features on, the measured crossover is within a factor of 2 of the one that "
      .. "operations predict: twice the features, causal four times", function(r)
      local parts, good, found = {}, true, false
      for _, causal in ipairs {false, true} do
        for _, features in ipairs {64, 256, 1024} do
          local predicted = (causal and 4 or 2) * features
          local measured, why = crossover(r, causal, features)
          parts[#parts + 1] = ("%s, %d features: %s (predicted %d)"):format(
            causal and "causal" or "all keys", features,
            measured and ("%.0f"):format(measured) or why, predicted
          )
          if measured and features >= 256 then
            found = true
            good = good and measured >= predicted / 2 and measured <= predicted * 2
          end
        end
      end
      return found and good, table.concat(parts, "; ")
    end, source = "Choromanski 2021 (Performer), operations", paper = "2 and 4 times the features"},
    {"At the longest context 256 features are faster than exact attention, causal "
      .. "or not", function(r)
      local longest, parts, good = r:extreme("context", 1), {}, true
      for _, causal in ipairs {false, true} do
        local ratio = r:where {causal = causal, context = longest}:ratio(
          "seconds", {features = 0}, {features = 256}
        )
        parts[#parts + 1] = ("%s %.1fx"):format(causal and "causal" or "all keys", ratio.median)
        good = good and ratio.median > 1
      end
      return good, ("%d tokens: "):format(longest) .. table.concat(parts, ", ")
    end},
    {"The error falls with the number of features", function(r)
      local parts, good = {}, true
      for _, causal in ipairs {false, true} do
        for _, metric in ipairs {"error", "error_small_scores"} do
          local before
          for _, features in ipairs {64, 256, 1024} do
            local e = r:where {
              causal = causal, context = 1024, features = features,
            }:values(metric)[1]
            if not e then return false, "not measured" end
            parts[#parts + 1] = ("%.3f"):format(e)
            good = good and (not before or e < before)
            before = e
          end
        end
      end
      return good, table.concat(parts, " ")
    end},
    {"FAVOR+ takes no more memory for longer contexts", function(r)
      local shortest, longest = r:extreme("context", -1), r:extreme("context", 1)
      local parts, good = {}, true
      for _, causal in ipairs {false, true} do
        local a = r:where {
          causal = causal, features = 256, context = shortest,
        }:values("scratch_bytes")[1]
        local b = r:where {
          causal = causal, features = 256, context = longest,
        }:values("scratch_bytes")[1]
        parts[#parts + 1] = ("%s %.1f MiB and %.1f MiB"):format(
          causal and "causal" or "all keys", a / 2 ^ 20, b / 2 ^ 20
        )
        good = good and b <= 4 * a -- long contexts are summed in four sections of keys
      end
      return good, table.concat(parts, "; ")
    end},
  },
}
