--- Which keys does each mask of attune.masks make visible, and which tiles do the kernels compute?
--
-- The first picture has few tokens and one square per pair: queries go down, keys to the right, and
-- a visible pair is blue. The second picture has many tokens and one square per tile of 64 x 64
-- pairs, as attune.block_map gives it: light tiles are never computed, pale tiles are masked pair
-- by pair, blue tiles are computed as without a mask.
-- Each mask is checked for every pair against `visible`, its rule in plain Lua. Sources: strided,
-- Child et al. 2019 (arXiv 1904.10509); dilated, and global and local, Beltagy et al. 2020
-- (Longformer, arXiv 2004.05150); natten, Hassani et al. 2022 (arXiv 2204.07143), whose windows are
-- moved inwards at the ends; window or first tokens, Xiao et al. 2023 (arXiv 2309.17453).
-- For an experiment of your own add a line to `gallery`.
local attune = require "attune"
local masks = attune.masks

-- The document of each of n tokens: consecutive parts of n.
local function documents(n)
  local ids, id, last = {}, 1, {0.3, 0.5, 0.6, 1}
  for i = 1, n do
    if i > last[id] * n then id = id + 1 end
    ids[i] = id
  end
  return ids
end

-- The rows of natten2d's grid of n tokens: the largest divisor of n up to its square root.
local function rows_of(n)
  local rows = math.floor(math.sqrt(n))
  while n % rows ~= 0 do rows = rows - 1 end
  return rows
end

-- The first of the w indices around x, within 0 to n - 1.
local function start(x, w, n) return math.max(0, math.min(x - w // 2, n - w)) end

-- make(n, u): the mask of n tokens; u is a unit of length that grows with n.
-- visible(i, j, n, u): whether key j is visible to query i.
local gallery = {
  {"causal", make = function() return masks.causal() end, visible = function(i, j)
    return j <= i
  end},
  {"sliding window", make = function(_, u) return masks.sliding_window(2 * u) end,
    visible = function(i, j, _, u) return j <= i and i - j < 2 * u end},
  {"prefix", make = function(_, u) return masks.prefix(3 * u) end,
    visible = function(i, j, _, u) return j <= 3 * u or j <= i end},
  {"documents", make = function(n) return masks.documents(documents(n)) end,
    visible = function(i, j, n)
      local ids = documents(n)
      return ids[i] == ids[j]
    end},
  {"causal and documents",
    make = function(n) return masks.all(masks.causal(), masks.documents(documents(n))) end,
    visible = function(i, j, n)
      local ids = documents(n)
      return j <= i and ids[i] == ids[j]
    end},
  {"dilated", make = function(_, u) return masks.dilated(u, 3) end,
    visible = function(i, j, _, u) return j <= i and i - j < 3 * u and (i - j) % 3 == 0 end},
  {"global and local", make = function(_, u) return masks.global_local(u // 2, u) end,
    visible = function(i, j, _, u)
      return math.abs(i - j) <= u or i <= u // 2 or j <= u // 2
    end},
  {"strided", make = function(_, u) return masks.strided(u) end,
    visible = function(i, j, _, u) return j <= i and (i - j < u or (i - j) % u == 0) end},
  {"natten, cut off at the ends", make = function(_, u) return masks.natten(2 * u + 1) end,
    visible = function(i, j, _, u) return math.abs(i - j) <= u end},
  {"natten", make = function(n, u) return masks.natten(2 * u + 1, n) end,
    visible = function(i, j, n, u)
      local first = start(i - 1, 2 * u + 1, n)
      return j - 1 >= first and j - 1 < first + 2 * u + 1
    end},
  {"natten on a grid",
    make = function(n) return masks.natten2d(rows_of(n), n // rows_of(n), 3) end,
    visible = function(i, j, n)
      local rows = rows_of(n)
      local columns = n // rows
      local top, left = start((i - 1) // columns, 3, rows), start((i - 1) % columns, 3, columns)
      local row, column = (j - 1) // columns, (j - 1) % columns
      return row >= top and row < top + 3 and column >= left and column < left + 3
    end},
  {"window or first tokens",
    make = function(_, u)
      return masks.all(masks.causal(), masks.any(masks.sliding_window(u), function(at)
        return at.j:le(u // 2)
      end))
    end,
    visible = function(i, j, _, u) return j <= i and (i - j < u or j <= u // 2) end},
}
local order, by_name = {}, {}
for n, entry in ipairs(gallery) do
  order[n], by_name[entry[1]] = entry[1], entry
end

return require "attune.experiment" {
  name = "masks",
  about = "Which pairs does each mask make visible, and which tiles must be computed?",
  fixed = {tokens = 36, map_tokens = 2048},
  grid = {mask = order},
  order = {"mask", "tokens", "map_tokens"},
  timing = false,
  rounds = 1,
  metrics = {
    pairs = {about = "1 where a key (column) is visible to a query (row), `tokens` tokens"},
    tiles = {about = "0 empty, 1 partial, 2 full: tiles of 64 x 64 pairs with `map_tokens` tokens"},
    visible = {unit = "%", about = "percentage of visible pairs with `tokens` tokens"},
    map_visible = {unit = "%", about = "percentage of visible pairs with `map_tokens` tokens"},
    computed = {unit = "%", about = "percentage of computed tiles with `map_tokens` tokens"},
    wrong = {
      unit = "pairs", better = "lower",
      about = "pairs where attention and the rule disagree on visibility",
    },
    hidden_from_self = {
      unit = "tokens", better = "lower", about = "tokens that are not visible to themselves",
    },
  },
  trial = function(p)
    local entry = by_name[p.mask]
    local unit = p.tokens // 9
    local q = attune.zeros {1, 1, p.tokens, 8}
    local weights = attune.attention_weights(q, q, {
      mask = entry.make(p.tokens, unit),
    }):tolist()[1][1]
    local flags, count, wrong, hidden_from_self = {}, 0, 0, 0
    for i = 1, p.tokens do
      for j = 1, p.tokens do
        local visible = weights[i][j] > 0
        flags[#flags + 1] = visible and 1 or 0
        count = count + (visible and 1 or 0)
        if visible ~= entry.visible(i, j, p.tokens, unit) then wrong = wrong + 1 end
        if i == j and not visible then hidden_from_self = hidden_from_self + 1 end
      end
    end
    local map = attune.block_map(entry.make(p.map_tokens, p.map_tokens // 16), {
      queries = p.map_tokens,
    })
    local tiles = {}
    for _, row in ipairs(map.rows) do
      for c = 1, #row do tiles[#tiles + 1] = row:byte(c) end
    end
    return {
      pairs = flags,
      tiles = tiles,
      visible = 100 * count / p.tokens ^ 2,
      map_visible = 100 * map.density,
      computed = 100 * (1 - map.blocks.empty / #tiles),
      wrong = wrong,
      hidden_from_self = hidden_from_self,
    }
  end,
  plots = {
    {kind = "pixels", name = "pairs", title = "Visible pairs", x = "mask", y = "pairs",
      also = "visible", order = order,
      caption = "Queries go down, keys to the right; blue is visible."},
    {kind = "pixels", name = "tiles", title = "Tiles of 64 x 64 pairs that the kernels compute",
      x = "mask", y = "tiles", also = "computed", order = order,
      caption = "Light: never computed. Pale: masked pair by pair. "
        .. "Blue: computed as without a mask."},
    {kind = "bars", name = "computed", title = "Visible pairs, and tiles that must be computed",
      x = "mask", parts = {"map_visible", "computed"}, stacked = false, order = order,
      caption = "The gap is work on hidden pairs: masks with single visible pairs in many tiles "
        .. "(dilated, strided) have the largest."},
  },
  claims = {
    {"Attention has exactly the visible pairs of each mask's rule in plain Lua", function(r)
      local wrong, values = 0, r:values "wrong"
      for _, n in ipairs(values) do wrong = wrong + n end
      return wrong == 0 and #values > 0, ("%d pairs of %d masks differ"):format(wrong, #values)
    end},
    {"Every token is visible to itself", function(r)
      local hidden_from_self = 0
      for _, n in ipairs(r:values "hidden_from_self") do hidden_from_self = hidden_from_self + n end
      return hidden_from_self == 0
    end},
    {"Every mask computes at least as large a percentage of tiles as of visible pairs", function(r)
      local visible, computed = r:values "map_visible", r:values "computed"
      for n = 1, #visible do
        if visible[n] > computed[n] + 1e-9 then return false end
      end
      return #visible > 0
    end},
  },
}
