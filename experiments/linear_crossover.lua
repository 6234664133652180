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

local masks, features = {"all keys", "causal"}, {64, 256, 1024}
local with = {["all keys"] = "With all keys", causal = "With a causal mask"}
local order = {"softmax", "M 64", "M 256", "M 1024"}

-- q, k and v; q and k have this standard deviation.
local function inputs(p, std)
  local function random(seed, of)
    return attune.randn({1, p.heads, p.context, p.head_dim}, {seed = p.seed + seed, std = of})
  end
  return random(1, std), random(2, std), random(3)
end

local function operations(p)
  local numbers = p.heads * p.context * p.head_dim
  if p.features > 0 then return 8 * numbers * p.features end
  return (p.mask == "causal" and 2 or 4) * numbers * p.context
end

local function root_mean_square(t) return math.sqrt((t * t):mean():item()) end

-- Relative error against exact attention, at the context that the figure shows.
local function relative_error(p, options, std)
  if p.context ~= 1024 or not options.projection then return nil end
  local q, k, v = inputs(p, std)
  local exact = attune.attention(q, k, v, {causal = options.causal})
  return root_mean_square(attune.linear_attention(q, k, v, options) - exact)
    / root_mean_square(exact)
end

-- How many times as fast FAVOR+ is: {context, ratio} for each context that both were measured at.
local function speedups(r, mask, m)
  local list, there = {}, r:where {mask = mask}
  for _, point in ipairs(there:where {features = m}.points) do
    local at = there:where {context = point.parameters.context}
    if point.metrics.seconds and #at:where {features = 0}:values "seconds" > 0 then
      local ratio = at:ratio("seconds", {features = 0}, {features = m}).centre
      list[#list + 1] = {context = point.parameters.context, ratio = ratio}
    end
  end
  return list
end

-- The context at which exact attention and FAVOR+ take equal time. Between two measured contexts
-- the logarithm of the ratio is interpolated linearly. nil and a reason where the times are never
-- equal.
local function crossover(r, mask, m)
  local list = speedups(r, mask, m)
  for i = 1, #list - 1 do
    local a, b = list[i], list[i + 1]
    if a.ratio < 1 and b.ratio >= 1 then
      local fraction = math.log(a.ratio) / math.log(a.ratio / b.ratio)
      return a.context * (b.context / a.context) ^ fraction
    end
  end
  if #list == 0 then return nil, "not measured" end
  local always = list[1].ratio >= 1
  return nil, ("%s %d"):format(always and "below" or "above", list[always and 1 or #list].context)
end

-- With few features the times are equal in short calls, where work outside the products matters.
local function crossover_claim(mask, factor)
  return {
    ("%s, from 256 features on, the measured crossover is within a factor of 2 of %d times the "
      .. "features"):format(with[mask], factor),
    function(r)
      local parts, good, found = {}, true, false
      for i, m in ipairs(features) do
        local measured, why = crossover(r, mask, m)
        local said = measured and ("%.0f tokens"):format(measured) or why
        parts[i] = ("%d features: %s (predicted %d)"):format(m, said, factor * m)
        if measured and m >= 256 then
          found = true
          good = good and measured >= factor * m / 2 and measured <= factor * m * 2
        end
      end
      if not found then return nil, table.concat(parts, "; ") end
      return good, table.concat(parts, "; ")
    end,
    source = "Choromanski 2021 (Performer), operations", paper = factor .. " times the features",
  }
end

local function speed_claim(mask)
  local claim = "%s, at the longest context, 256 features are faster than exact attention"
  return {claim:format(with[mask]), function(r)
    return r:where {mask = mask, context = r:extreme("context", 1)}
      :ratio("seconds", {features = 0}, {features = 256}):above(1)
  end}
end

local function error_claim(mask)
  return {
    with[mask] .. ", four times the features divide the error of small scores by 1.3 to 2.5",
    function(r)
      return r:where {mask = mask, context = 1024}
        :ratio("error_small_scores", {features = 64}, {features = 256}):within(1.3, 2.5)
    end,
    source = "Choromanski 2021 (Performer), lemma 2: a variance of 1 / M", paper = 2,
  }
end

return require "attune.experiment" {
  name = "linear_crossover",
  about = "From which context on is FAVOR+ faster than exact attention on this machine, compared "
    .. "with the crossover that operation counts predict, and how large is its error?",
  fixed = {heads = 8, head_dim = 64},
  grid = {
    mask = masks,
    features = {0, 64, 256, 1024}, -- 0: exact attention
    context = {256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536},
  },
  derived = {
    method = function(p) return p.features == 0 and "softmax" or ("M %d"):format(p.features) end,
  },
  order = {"mask", "method", "features", "context"},
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
      unit = "B", better = "lower",
      about = "peak bytes allocated during a call, without inputs and o",
    },
  },
  trial = function(p, t)
    local q, k, v = inputs(p)
    local exact, options = p.features == 0, {causal = p.mask == "causal"}
    if not exact then
      options.projection = attune.favor_projection {
        head_dim = p.head_dim, features = p.features, seed = p.seed,
      }
    end
    local attend = exact and attune.attention or attune.linear_attention
    local function call() return (attend(q, k, v, options)) end
    attune.memory {reset_peak = true}
    local before = attune.memory().bytes
    local o = call()
    local scratch = attune.memory().peak - before - o.nbytes
    local long = operations(p) > 2e11
    local seconds = t:time(function() call():close() end, {
      budget = 0.1, least = long and 1 or 3, warmups = long and 0 or 1,
    })
    local token_seconds = {}
    for i, s in ipairs(seconds.samples) do token_seconds[i] = s / p.context end
    return {
      seconds = seconds,
      predicted = operations(p) / attune.measure.peak(0.02),
      token_seconds = token_seconds,
      error = relative_error(p, options, 1),
      -- Halving q and k divides the scores by 4.
      error_small_scores = relative_error(p, options, 0.5),
      scratch_bytes = scratch,
    }
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
      also = "predicted", log = "xy", order = order, lines = {{y = 1, text = "equal times"}},
      caption = "Above 1 FAVOR+ is faster."},
    {kind = "line", name = "token",
      title = "Seconds per token: exact attention, and FAVOR+ of M features", x = "context",
      y = "token_seconds", by = "method", facet = "mask", log = "xy", order = order,
      caption = "Constant for FAVOR+, whose time is linear in tokens."},
    {kind = "line", name = "error", title = "Relative error against exact attention, 1024 tokens",
      x = "features", y = "error", by = "mask", also = "error_small_scores",
      where = {context = 1024, features = features}, log = "xy",
      caption = "Scores of standard deviation 1; dashed: 1/4. A line of slope -1/2 is an error "
        .. "that falls with the square root of the number of features."},
  },
  claims = {
    crossover_claim("all keys", 2),
    crossover_claim("causal", 4),
    speed_claim "all keys",
    speed_claim "causal",
    error_claim "all keys",
    error_claim "causal",
    {"FAVOR+ takes at most 4 times the memory at the longest context that it takes at the "
      .. "shortest", function(r)
      -- Long contexts are summed in four sections of keys.
      local parts, good = {}, true
      for i, mask in ipairs(masks) do
        local there = r:where {mask = mask, features = 256}
        local function bytes(sign)
          return there:value("scratch_bytes", {context = r:extreme("context", sign)}).centre
        end
        local short, long = bytes(-1), bytes(1)
        parts[i] = ("%s %.1f MiB and %.1f MiB"):format(mask, short / 2 ^ 20, long / 2 ^ 20)
        good = good and long <= 4 * short
      end
      return good, table.concat(parts, "; ")
    end},
  },
}
