--- What does each encoding do to a position? A picture of every encoding of attune.position, drawn
--- from attune's numbers, with its formula.
--
-- Encodings that change the embeddings or rotate q and k are drawn as maps: positions go to the
-- right, dims or pairs go down, blue is above 0 and orange below 0. Encodings that change the
-- scores, and xPos, are drawn as lines over the distance: the query's position minus the key's. The
-- metric `error` compares each number with the formula of docs/positions.md in plain Lua. Sources:
-- sinusoidal, Vaswani et al. 2017 (arXiv 1706.03762); rope, Su et al. 2021 (arXiv 2104.09864);
-- xpos, Sun et al. 2022 (arXiv 2212.10554); alibi, Press et al. 2021 (arXiv 2108.12409); t5, Raffel
-- et al. 2019 (arXiv 1910.10683).
-- For an experiment of your own add a row to `gallery`; docs/positions.md shows these pictures.
local attune = require "attune"

local side, heads, head_dim, d_model, pair_count = 64, 8, 64, 64, 64
local double = {dtype = "f64"}

-- The distances of a line chart: close together near 0, where values change fastest.
local spans = {
  alibi = {0, 16, 32, 48, 64, 80, 96, 112, 128},
  xpos = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128,
    160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024,
    1280, 1536, 1792, 2048},
}

-- T5's distances: the last of each bucket and the first of the next, for 32 buckets up to 128.
local t5_buckets, t5_max_distance = 32, 128
local function t5_span(bidirectional)
  local count, span = bidirectional and t5_buckets // 2 or t5_buckets, {}
  local near = count // 2
  for distance = 0, near do span[#span + 1] = distance end
  for n = 1, count - near - 1 do
    local edge = math.ceil(near * (t5_max_distance / near) ^ (n / (count - near)) - 1e-9)
    if edge - 1 > span[#span] then span[#span + 1] = edge - 1 end
    span[#span + 1] = edge
  end
  span[#span + 1] = 192
  return span
end

-- A map of side x side numbers, row by row: attune's at(row, column), counted from 0; and the max
-- error against formula(row, column).
local function map(at, formula)
  local cells, worst = {}, 0
  for row = 0, side - 1 do
    for column = 0, side - 1 do
      local value = at(row, column)
      cells[#cells + 1] = value
      worst = math.max(worst, math.abs(value - formula(row, column)))
    end
  end
  return {cells = cells, error = worst}
end

-- The mean of the map's cells that `wanted` keeps.
local function mean(cells, wanted)
  local sum, count = 0, 0
  for n, cell in ipairs(cells) do
    if wanted((n - 1) // side, (n - 1) % side) then sum, count = sum + cell, count + 1 end
  end
  return sum / count
end

local function theta(i, dims, base) return base ^ (-2 * i / dims) end

-- What an encoding adds to embeddings at positions 0, 1, ..: [side][dims].
local function embedded(pe, dims)
  return pe:embed(attune.zeros({1, side, dims}, double)):view(side, dims)
end

local function sinusoidal(layout, base)
  local rows = embedded(
    attune.position("sinusoidal", {d_model = d_model, layout = layout, base = base}), d_model
  ):tolist()
  return map(function(dim, t) return rows[t + 1][dim + 1] end, function(dim, t)
    local sine, i = dim % 2 == 0, dim // 2
    if layout == "halves" then sine, i = dim < d_model / 2, dim % (d_model // 2) end
    local angle = t * theta(i, d_model, base)
    return sine and math.sin(angle) or math.cos(angle)
  end)
end

-- Cosines of the angles between the rows of any two positions.
local function similarity(pe, dims, formula)
  local x = embedded(pe, dims)
  local inner = attune.matmul(x, x:transpose(1, 2)):tolist()
  local result = map(
    function(i, j)
      return inner[i + 1][j + 1] / math.sqrt(inner[i + 1][i + 1] * inner[j + 1][j + 1])
    end,
    formula
  )
  result.next_token = mean(result.cells, function(row, column) return column == row + 1 end)
  return result
end

local function sinusoidal_similarity()
  return similarity(attune.position("sinusoidal", {d_model = d_model}), d_model, function(i, j)
    local sum = 0
    for n = 0, d_model // 2 - 1 do sum = sum + math.cos((i - j) * theta(n, d_model, 10000)) end
    return sum / (d_model / 2)
  end)
end

local function learned_similarity(dims)
  local pe = attune.position("learned", {d_model = dims, max_positions = side, seed = 1})
  local rows = pe.table:tolist()
  local function dot(a, b)
    local sum = 0
    for n = 1, dims do sum = sum + a[n] * b[n] end
    return sum
  end
  return similarity(pe, dims, function(i, j)
    local a, b = rows[i + 1], rows[j + 1]
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
  end)
end

-- The pair (1, 0) rotated at each position: its first number is the cosine and its second the sine
-- of the angle.
local function rotated(base, first)
  local ones_and_zeros = {}
  for n = 1, 2 * pair_count do ones_and_zeros[n] = n <= pair_count and 1 or 0 end
  local x = attune.zeros({1, 1, side, 2 * pair_count}, double)
    + attune.tensor(ones_and_zeros, double)
  local rows = attune.position("rope", {
    head_dim = 2 * pair_count, base = base,
  }):rotate(x):tolist()[1][1]
  return map(function(pair, t) return rows[t + 1][pair + (first and 1 or pair_count + 1)] end,
      function(pair, t)
    return (first and math.cos or math.sin)(t * theta(pair, 2 * pair_count, base))
  end)
end

-- The score of the token in the middle of a grid with each token of the grid, divided by its score
-- with itself. All q and k are ones.
local function grid(pe, position, formula)
  local middle, cells = side // 2, {}
  for n = 1, side * side do cells[n] = position((n - 1) // side, (n - 1) % side) end
  local k = pe:rotate(attune.ones({1, 1, side * side, head_dim}, double), cells, "k")
  local q = pe:rotate(attune.ones({1, 1, 1, head_dim}, double), {position(middle, middle)}, "q")
  local scores = attune.matmul(q, k:transpose(3, 4)):tolist()[1][1][1]
  local function score(row, column) return scores[row * side + column + 1] / head_dim end
  local result = map(score, function(row, column) return formula(row - middle, column - middle) end)
  result.right, result.below = score(middle, middle + 1), score(middle + 1, middle)
  return result
end

local function mean_cosine(distance, dims, base)
  local sum = 0
  for i = 0, dims // 2 - 1 do sum = sum + math.cos(distance * theta(i, dims, base)) end
  return sum / (dims // 2)
end

local function rope2d(base)
  return grid(attune.position("rope2d", {head_dim = head_dim, base = base}),
      function(row, column) return {row, column} end, function(rows, columns)
    return (mean_cosine(rows, head_dim // 2, base) + mean_cosine(columns, head_dim // 2, base)) / 2
  end)
end

local function rope_by_rows()
  return grid(attune.position("rope", {head_dim = head_dim}),
      function(row, column) return row * side + column end, function(rows, columns)
    return mean_cosine(rows * side + columns, head_dim, 10000)
  end)
end

-- The score of a query and a key of ones, divided by that at distance 0. drift: the max change of
-- the product when both tokens are shifted.
local function product(pe, distance, scale_base)
  local ones, values, drift = attune.ones({1, 1, 1, head_dim}, double), {}, 0
  for n, first in ipairs {0, 17, 1000} do
    local q, k = pe:rotate(ones, {first + distance}, "q"), pe:rotate(ones, {first}, "k")
    values[n] = attune.matmul(q, k:transpose(3, 4)):tolist()[1][1][1][1] / head_dim
    drift = math.max(drift, math.abs(values[n] - values[1]))
  end
  local sum = 0
  for i = 0, head_dim // 2 - 1 do
    local zeta = (2 * i + 0.4 * head_dim) / (1.4 * head_dim)
    sum = sum
      + math.cos(distance * theta(i, head_dim, 10000))
        * (scale_base and zeta ^ (distance / scale_base) or 1)
  end
  return {product = values[1], drift = drift, error = math.abs(values[1] - sum / (head_dim // 2))}
end

-- What a score function adds at a distance. All q·k are 0, so that the logarithm of a ratio of
-- weights is a difference of biases.
local function bias(pe, distance, head)
  local tokens = math.abs(distance) + 1
  local q = attune.zeros({1, head, tokens, 8}, double)
  local i, j = math.max(distance, 0) + 1, math.max(-distance, 0) + 1
  local weights = attune.attention_weights(q, q, {score = pe.score}):tolist()[1][head][i]
  return math.log(weights[j] / weights[i])
end

local function alibi(head, distance)
  local value = bias(attune.position("alibi", {heads = heads}), distance, head)
  return {bias = value, error = math.abs(value + 2 ^ (-8 * head / heads) * distance)}
end

-- Row n of the table holds n / 4, so that 4 times the bias is the bucket.
local function t5(bidirectional, distance)
  local rows = {}
  for n = 1, t5_buckets do rows[n] = {(n - 1) / 4} end
  local pe = attune.position("t5", {
    table = attune.tensor(rows, double),
    max_distance = t5_max_distance,
    bidirectional = bidirectional,
  })
  local count = bidirectional and t5_buckets // 2 or t5_buckets
  local near, r = count // 2, bidirectional and math.abs(distance) or math.max(distance, 0)
  local wanted = r < near
    and r
    or math.min(
      count - 1,
      near
        + math.floor(math.log(r / near) / math.log(t5_max_distance / near) * (count - near) + 1e-9)
    )
  if bidirectional and distance < 0 then wanted = wanted + count end
  local value = 4 * bias(pe, distance, 1)
  return {
    bucket = value,
    error = math.max(math.abs(value - wanted), math.abs(pe:bucket(-distance) - wanted)),
  }
end

local function xpos_name(scale_base) return "xpos, scale_base " .. scale_base end
local function head_name(head) return ("head %d, slope 1/%d"):format(head, 2 ^ head) end

-- {encoding, variant, make(distance)}. A row with a span has one point for each distance of the
-- span, and for each negative distance where `both` is set. A map has one point, whose distance is
-- "all".
local gallery = {
  {"sinusoidal", "interleaved", make = function() return sinusoidal("interleaved", 10000) end},
  {"sinusoidal", "halves", make = function() return sinusoidal("halves", 10000) end},
  {"sinusoidal", "interleaved, base 100", make = function()
    return sinusoidal("interleaved", 100)
  end},
  {"learned", "untrained, 64 dims", make = function() return learned_similarity(d_model) end},
  {"learned", "untrained, 512 dims", make = function() return learned_similarity(512) end},
  {"learned", "sinusoidal, 64 dims", make = sinusoidal_similarity},
  {"rope", "cosine", make = function() return rotated(10000, true) end},
  {"rope", "sine", make = function() return rotated(10000, false) end},
  {"rope", "cosine, base 500000", make = function() return rotated(500000, true) end},
  {"rope2d", "rope2d", make = function() return rope2d(10000) end},
  {"rope2d", "rope2d, base 100", make = function() return rope2d(100) end},
  {"rope2d", "rope, row after row", make = rope_by_rows},
  {"xpos", "rope", span = spans.xpos, make = function(distance)
    return product(attune.position("rope", {head_dim = head_dim}), distance)
  end},
  {"t5", "causal", span = t5_span(false), both = true, make = function(distance)
    return t5(false, distance)
  end},
  {"t5", "bidirectional", span = t5_span(true), both = true, make = function(distance)
    return t5(true, distance)
  end},
}
for _, scale_base in ipairs {512, 128} do
  table.insert(gallery, {"xpos", xpos_name(scale_base), span = spans.xpos, make = function(distance)
    return product(
      attune.position("xpos", {head_dim = head_dim, scale_base = scale_base}), distance, scale_base
    )
  end})
end
for head = 1, heads do
  table.insert(gallery, {"alibi", head_name(head), span = spans.alibi, make = function(distance)
    return alibi(head, distance)
  end})
end

-- The values of the grid's parameters, and the rows of the gallery by encoding and variant.
local encodings, variants, distances, rows = {}, {}, {}, {}
local function add(list, value)
  for _, other in ipairs(list) do
    if other == value then return end
  end
  list[#list + 1] = value
end
for _, row in ipairs(gallery) do
  add(encodings, row[1])
  add(variants, row[2])
  row.at = {}
  for _, distance in ipairs(row.span or {}) do
    row.at[distance] = true
    if row.both then row.at[-distance] = true end
  end
  for distance in pairs(row.at) do add(distances, distance) end
  if not row.span then row.at.all = true end
  rows[row[1] .. "/" .. row[2]] = row
end
table.sort(distances)
distances[#distances + 1] = "all"

-- A metric's value of one point.
local function value(r, metric, encoding, variant, distance)
  return r:where {encoding = encoding, variant = variant, distance = distance}:values(metric)[1]
end

return require "attune.experiment" {
  name = "positions",
  about = "What does each encoding do to a position?",
  grid = {encoding = encodings, variant = variants, distance = distances},
  where = function(p)
    local row = rows[p.encoding .. "/" .. p.variant]
    return row ~= nil and row.at[p.distance] == true
  end,
  order = {"encoding", "variant", "distance"},
  timing = false,
  rounds = 1,
  metrics = {
    cells = {about = "the numbers of a map, row by row"},
    bias = {
      about = "what is added to a score at this distance: the query's position minus the key's",
    },
    bucket = {about = "the row of T5's table at this distance"},
    product = {
      about = "score of a query and a key of ones at this distance, divided by that at distance 0",
    },
    drift = {better = "lower", about = "max change of the product when both tokens move"},
    next_token = {about = "mean cosine between the rows of neighbouring positions"},
    right = {
      about = "score of the middle token with the one to its right, divided by that with itself",
    },
    below = {about = "the same with the token below it"},
    error = {better = "lower", about = "max difference from the formula of docs/positions.md"},
  },
  trial = function(p) return rows[p.encoding .. "/" .. p.variant].make(p.distance) end,
  plots = {
    {kind = "pixels", name = "sinusoidal", title = "Sinusoidal: what is added to embeddings",
      x = "variant", y = "cells", where = {encoding = "sinusoidal"},
      across = "position, 0 to 63", down = "dim, 0 to 63",
      caption = "Early dims have a period of a few tokens, late dims hardly change within 64; a "
        .. "smaller base shortens every period."},
    {kind = "pixels", name = "learned", title = "Cosine between the rows of two positions",
      x = "variant", y = "cells", where = {encoding = "learned"},
      across = "position, 0 to 63", down = "position, 0 to 63",
      caption = "Learned rows carry no distance before training; sinusoidal rows do."},
    {kind = "pixels", name = "rope", title = "RoPE: cosine and sine of each pair's angle",
      x = "variant",
      y = "cells", where = {encoding = "rope"},
      across = "position, 0 to 63", down = "pair, 0 to 63",
      caption = "The first pair rotates by one radian per token, the last "
        .. "by little more than 1 / base."},
    {kind = "pixels", name = "rope2d",
      title = "Score of the token in the middle of a grid with all others",
      x = "variant", y = "cells",
      where = {encoding = "rope2d"},
      across = "column, 0 to 63", down = "row, 0 to 63",
      caption = "rope2d treats rows and columns alike. RoPE over tokens counted row by row finds "
        .. "neighbours only in the token's own row."},
    {kind = "line", name = "xpos", title = "xPos and RoPE: product of a query and a key of ones",
      x = "distance", y = "product", by = "variant", log = "x",
      where = {encoding = "xpos"}, order = {"rope", xpos_name(512), xpos_name(128)},
      caption = "RoPE's product oscillates; with xPos it decays, the "
        .. "faster the smaller scale_base is."},
    {kind = "line", name = "alibi", title = "ALiBi: what is added to a score, by distance",
      x = "distance", y = "bias", by = "variant", where = {encoding = "alibi"},
      caption = "Each head's slope is half of the one before."},
    {kind = "line", name = "t5", title = "T5: bucket by distance; below 0 are keys after the query",
      x = "distance", y = "bucket", by = "variant", where = {encoding = "t5"},
      caption = "One bucket per near distance, then ever wider buckets. Causal: all 32 for keys "
        .. "before the query; bidirectional: half of them."},
  },
  claims = {
    {"Every number equals its formula to 1e-6", function(r)
      local worst, values = 0, r:values "error"
      for _, e in ipairs(values) do worst = math.max(worst, e) end
      return worst < 1e-6 and #values > 0, ("at most %.1g in %d points"):format(worst, #values)
    end},
    {"The mean cosine between neighbours is above 0.9 for sinusoidal rows, and within 0.1 of "
      .. "0 for untrained learned rows", function(r)
      local sinusoidal_64 = value(r, "next_token", "learned", "sinusoidal, 64 dims", "all")
      local untrained_64 = value(r, "next_token", "learned", "untrained, 64 dims", "all")
      local untrained_512 = value(r, "next_token", "learned", "untrained, 512 dims", "all")
      return sinusoidal_64 > 0.9
        and math.abs(untrained_64) < 0.1 and math.abs(untrained_512) < 0.1,
        ("%.3f; %.3f and %.3f"):format(sinusoidal_64, untrained_64, untrained_512)
    end},
    {"With rope2d the tokens below and to the right of the middle have equal scores; with RoPE "
      .. "over tokens counted row by row the one below has less than 0.9 of the other", function(r)
      local function both(variant)
        return value(r, "right", "rope2d", variant, "all"),
          value(r, "below", "rope2d", variant, "all")
      end
      local right, below = both "rope2d"
      local right_rows, below_rows = both "rope, row after row"
      return math.abs(right - below) < 1e-9 and below_rows < 0.9 * right_rows,
        ("%.3f, %.3f; %.3f, %.3f"):format(right, below, right_rows, below_rows)
    end},
    {"ALiBi's bias is linear in the distance, and "
      .. "each head's slope is half of the one before", function(r)
      for head = 1, heads do
        for _, distance in ipairs(spans.alibi) do
          local bias_ = value(r, "bias", "alibi", head_name(head), distance)
          if math.abs(bias_ + 2 ^ -head * distance) > 1e-9 then return false end
        end
      end
      return true
    end, source = "Press 2021 (ALiBi), section 3", paper = "slopes of 8 heads 1/2 to 1/256"},
    {"T5's bucket never falls with the distance, and "
      .. "causal puts all later keys into bucket 0", function(r)
      local function rising(variant, sign)
        local last, span = -1, t5_span(variant == "bidirectional")
        for n = sign > 0 and 1 or 2, #span do
          local bucket = value(r, "bucket", "t5", variant, sign * span[n])
          local misplaced = variant == "causal" and sign < 0 and math.abs(bucket) > 1e-9
          if bucket < last - 1e-9 or misplaced then
            return false, last
          end
          last = bucket
        end
        return true, last
      end
      local causal, a = rising("causal", 1)
      local before, b = rising("bidirectional", 1)
      local after, c = rising("bidirectional", -1)
      return causal and before and after and rising("causal", -1),
        (
          "at distance 192 bucket %.0f causal; bidirectional %.0f, and %.0f after the query"
        ):format(a, b, c)
    end, source = "Raffel 2019 (T5), section 2.1", paper = "32 buckets, up to a distance of 128"},
    {"The products of RoPE and xPos depend on the distance only, to 1e-9", function(r)
      local worst, values = 0, r:values "drift"
      for _, drift in ipairs(values) do worst = math.max(worst, drift) end
      return worst < 1e-9 and #values > 0, ("at most %.1g"):format(worst)
    end},
    {"xPos' product decays below RoPE's: the smaller scale_base, the smaller the mean of "
      .. "its magnitude from 64 tokens on", function(r)
      local means = {}
      for n, variant in ipairs {"rope", xpos_name(512), xpos_name(128)} do
        local sum, count = 0, 0
        for _, distance in ipairs(spans.xpos) do
          if distance >= 64 then
            sum = sum + math.abs(value(r, "product", "xpos", variant, distance))
            count = count + 1
          end
        end
        means[n] = sum / count
      end
      return means[1] > means[2] and means[2] > means[3],
        ("%.3f, scale_base 512: %.3f, 128: %.3f"):format(means[1], means[2], means[3])
    end},
  },
}
