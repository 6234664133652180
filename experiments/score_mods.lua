--- What does a score or a mask of your own cost, compared with plain attention?
--
-- Each trial times plain causal attention and attention with one change, in alternating calls,
-- forward and backward, and reports the ratio, so that a machine that slows down affects both. The
-- ratio of a score is its cost; 1 means none. The ratio of a mask is its speed-up over causal
-- attention. It is plotted with the speed-up that the visible pairs allow (causal pairs over
-- visible pairs), and with the speed-up that the computed tiles of 64 x 64 pairs allow.
-- A dense bias is read from memory once per pair and has one gradient per pair: prefer a formula or
-- a smaller table. Sources: docs/programs.md for scores, experiments/masks.lua for masks.
-- For an experiment of your own add a line to `scores` or `masks`.
local attune = require "attune"

-- Name, and the options that are added to {causal = true} for the point p.
local scores = {
  {"scale", function() return {scale = 0.1} end},
  {"alibi", function(p) return {score = attune.position("alibi", {heads = p.heads}).score} end},
  {"softcap option", function() return {softcap = 30} end},
  {"softcap", function() return {score = attune.scores.softcap(30)} end},
  {"distance", function() return {score = attune.scores.distance(0.01)} end},
  {"t5", function(p)
    return {
      score = attune.scores.t5(attune.randn({32, p.heads}, {seed = 3}), {bidirectional = false}),
    }
  end},
  {"dense bias", function(p)
    local bias = attune.randn({p.heads, p.tokens, p.tokens}, {seed = 4})
    return {score = function(s, at) return s + bias[at.h][at.i][at.j] end}
  end},
  {"gate", function(p)
    local gate = attune.uniform({p.heads, p.tokens}, {seed = 5})
    return {score = function(s, at) return s * gate[at.h][at.j] end}
  end},
}

local function documents(n, size)
  local ids = {}
  for i = 1, n do ids[i] = (i - 1) // size end
  return ids
end

-- Name, family, and the mask that replaces {causal = true}. Sizes are fractions of the tokens, so
-- that the fraction of visible pairs does not depend on the number of tokens.
local masks = {
  {"causal", "causal", function() return attune.masks.causal() end},
  {"natten on a grid", "grid", function(p)
    return attune.masks.natten2d(32, p.tokens // 32, 7)
  end},
}
for _, divisor in ipairs {4, 16, 64} do
  local function add(name, make)
    masks[#masks + 1] = {("%s 1/%d"):format(name, divisor), name, make}
  end
  add("window", function(p) return attune.masks.sliding_window(p.tokens // divisor) end)
  add("documents", function(p)
    return attune.masks.all(
      attune.masks.causal(), attune.masks.documents(documents(p.tokens, p.tokens // divisor))
    )
  end)
  if divisor > 4 then
    add("dilated", function(p) return attune.masks.dilated(p.tokens // divisor // 4, 4) end)
    add("global + local", function(p)
      return attune.masks.global_local(16, p.tokens // divisor // 2)
    end)
    add("strided", function(p) return attune.masks.strided(p.tokens // divisor) end)
    add("natten", function(p) return attune.masks.natten(p.tokens // divisor + 1, p.tokens) end)
  end
end

local changes, score_order, order = {}, {}, {}
for n, entry in ipairs(scores) do
  changes[entry[1]], order[n] = {score = entry[2], family = "score"}, entry[1]
  if entry[1] ~= "dense bias" then score_order[#score_order + 1] = entry[1] end
end
for _, entry in ipairs(masks) do
  changes[entry[1]], order[#order + 1] = {mask = entry[3], family = entry[2]}, entry[1]
end

local function map_of(mask, tokens) return attune.block_map(mask, {queries = tokens}) end

-- Ratios of b's seconds to a's in alternating calls, after one call of each to warm up: at least 3,
-- or fewer where 2 seconds have passed.
local function alternating_ratios(a, b)
  local ratios, start = {}, attune.clock()
  local function seconds(fn)
    local from = attune.clock()
    fn()
    return attune.clock() - from
  end
  a()
  b()
  while #ratios == 0 or attune.clock() - start < (#ratios < 3 and 2 or 0.3) and #ratios < 50 do
    -- The second call finds the processor's caches as the first left them, so the order alternates.
    local of_a = #ratios % 2 == 0 and seconds(a)
    local of_b = seconds(b)
    ratios[#ratios + 1] = of_b / (of_a or seconds(a))
  end
  return ratios
end

local function inverse(ratios)
  local list = {}
  for n, x in ipairs(ratios) do list[n] = 1 / x end
  return list
end

-- The max and the min of a metric's values at the points that `keep` keeps: {value, name} each, or
-- nil where no point has the metric.
local function extremes(r, metric, keep)
  local max, min
  for _, point in ipairs(r.points) do
    local value = point.metrics[metric] and point.metrics[metric].median
    if value and keep(point.parameters, point.metrics) then
      local found = {value, point.parameters.change .. ", " .. point.parameters.direction}
      if not max or value > max[1] then max = found end
      if not min or value < min[1] then min = found end
    end
  end
  return max, min
end

local tokens = {
  score = {quick = 1024, small = 2048, large = 4096},
  mask = {quick = 2048, small = 4096, large = 8192},
}
local families = {"window", "documents", "natten", "dilated", "global + local", "strided", "grid"}

return require "attune.experiment" {
  name = "score_mods",
  about = "What does each score program cost compared with plain attention, and how much "
    .. "faster does each mask make it?",
  fixed = {heads = 4, head_dim = 64},
  grid = {change = order, direction = {"forward", "backward"}, size = {"small", "large"}},
  derived = {
    family = function(p) return changes[p.change].family end,
    tokens = function(p) return tokens[changes[p.change].mask and "mask" or "score"][p.size] end,
    percent_visible = function(p)
      return tonumber(
        ("%.3g"):format(
          100 * map_of(
            changes[p.change].mask and changes[p.change].mask(p) or attune.masks.causal(), p.tokens
          ).density
        )
      )
    end,
  },
  quick = {size = {"quick"}, rounds = 1},
  order = {
    "change", "family", "direction", "size", "tokens", "percent_visible", "heads", "head_dim",
  },
  rounds = 3,
  metrics = {
    cost = {better = "lower", about = "seconds with the program over seconds without"},
    speedup = {better = "higher", about = "seconds of causal attention over seconds with the mask"},
    allowed = {
      better = "higher",
      about = "speed-up that the visible pairs allow: causal pairs over visible pairs",
    },
    allowed_by_tiles = {
      better = "higher", about = "speed-up that the computed tiles of 64 x 64 pairs allow",
    },
    reached = {
      unit = "%",
      better = "higher",
      about = "percentage of the speed-up that the computed tiles allow",
    },
  },
  trial = function(p)
    local shape = {1, p.heads, p.tokens, p.head_dim}
    local function random(n) return attune.randn(shape, {seed = p.seed + n}) end
    local q, k, v, d_o = random(0), random(1), random(2), random(3)
    local made = changes[p.change]
    local mask = made.mask and made.mask(p)
    local changed = mask and {mask = mask} or made.score(p)
    changed.causal = made.score and true or nil
    local function calls(options)
      if p.direction == "forward" then return function() attune.attention(q, k, v, options) end end
      local o, lse = attune.attention(q, k, v, options)
      return function() attune.attention_backward(d_o, q, k, v, o, lse, options) end
    end
    local ratios = alternating_ratios(calls {causal = true}, calls(changed))
    if not mask then return {cost = ratios} end
    local map, causal = map_of(mask, p.tokens), map_of(attune.masks.causal(), p.tokens)
    local function computed(m) return m.blocks.partial + m.blocks.full end
    local speedups, reached = inverse(ratios), {}
    for n, x in ipairs(speedups) do reached[n] = 100 * x * computed(map) / computed(causal) end
    return {
      speedup = speedups,
      allowed = causal.density / map.density,
      allowed_by_tiles = computed(causal) / computed(map),
      reached = reached,
    }
  end,
  plots = {
    {kind = "bars", name = "cost", facet = "size",
      title = "Attention with a score: time over that of plain attention", x = "change", y = "cost",
      by = "direction", order = {"forward", "backward"}, where = {change = score_order},
      caption = "Measured in alternation with plain causal attention. scale: an option that costs "
        .. "nothing, and so shows the noise."},
    {kind = "line", name = "speedup", facet = "direction",
      title = "How many times as fast as causal attention a mask is", x = "percent_visible",
      y = "speedup", by = "family", order = families, also = "allowed",
      where = {size = {"quick", "small"}, family = families}, log = "xy",
      caption = "Dashed: the speed-up that the visible pairs allow. Tiles of 64 x "
        .. "64 pairs are computed or not: a mask that leaves few pairs in "
        .. "each of many tiles gains little."},
    {kind = "line", name = "tiles", facet = "direction",
      title = "The same beside what the computed tiles allow",
      x = "percent_visible", y = "speedup", by = "family", order = families,
      also = "allowed_by_tiles", where = {size = {"quick", "small"}, family = families},
      log = "xy", caption = "Dashed: all tiles of causal attention over those of the mask."},
  },
  claims = {
    {"Except for a dense bias, no score costs more than half of plain attention forward, "
      .. "or doubles its time backward", function(r)
      local function keep(direction)
        return function(p) return p.direction == direction and p.change ~= "dense bias" end
      end
      local forward = extremes(r, "cost", keep "forward")
      local backward = extremes(r, "cost", keep "backward")
      if not forward or not backward then return nil, "not measured" end
      return forward[1] < 1.5 and backward[1] < 2,
        ("at most %.2f (%s), %.2f (%s)"):format(forward[1], forward[2], backward[1], backward[2])
    end},
    {"Causal as a mask program is slower than causal as an option by less than a third", function(r)
      local _, min = extremes(r, "speedup", function(p) return p.change == "causal" end)
      if not min then return nil, "not measured" end
      return min[1] > 0.75, ("%.2f times as fast (%s)"):format(min[1], min[2])
    end},
    {"No mask is slower than causal attention by more than a third", function(r)
      local _, min = extremes(r, "speedup", function() return true end)
      if not min then return nil, "not measured" end
      return min[1] > 0.75, ("%.2f times as fast (%s)"):format(min[1], min[2])
    end},
    {"Windows and documents with less than 10% of visible pairs are at least 3 times "
      .. "as fast", function(r)
      local _, min = extremes(r, "speedup", function(p)
        return (p.family == "window" or p.family == "documents") and p.percent_visible < 10
      end)
      if not min then return nil, "not measured" end
      return min[1] > 3, ("at least %.2f times (%s)"):format(min[1], min[2])
    end},
    {"A mask whose tiles allow 4 times the speed is at least twice as fast", function(r)
      local _, min = extremes(r, "speedup", function(_, m)
        return m.allowed_by_tiles.median >= 4
      end)
      if not min then return nil, "not measured" end
      return min[1] > 2, ("at least %.2f times (%s)"):format(min[1], min[2])
    end},
  },
}
