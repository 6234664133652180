--- Which encodings depend on distances only? All positions are shifted, and the scores before the
--- softmax are compared with those before the shift.
--
-- The scores of a relative encoding change only by the rounding of its angles; those of an absolute
-- encoding change already with a shift of one token. RoPE is relative by construction (Su et al.
-- 2021, arXiv 2104.09864, equation 16) if its angles are precise enough: the same encoding with f32
-- and f16 angles is included. The second question is how a score decays with distance. For a query
-- and a key of ones, RoPE's product is the mean cosine over the pairs. Section 3.4.3 bounds the
-- product of any q and k whose neighbouring pairs differ little; at distance m the bound is
--   mean over j of |S_j|, S_j = sum of e^(i m theta_n) over the pairs n < j
-- It is shown relative to its value at distance 0, and it falls, but not monotonically.
-- For an experiment of your own add a line to `encodings`.
local attune = require "attune"

local tokens, head_dim = 32, 64

local encodings = {
  none = {"none", {}},
  sinusoidal = {"sinusoidal", {d_model = head_dim}},
  learned = {"learned", {d_model = head_dim, max_positions = 33000, seed = 1}},
  rope = {"rope", {head_dim = head_dim}},
  ["rope-5e5"] = {"rope", {head_dim = head_dim, base = 500000}},
  ["rope-f32"] = {"rope", {head_dim = head_dim, angles = "f32"}},
  ["rope-f16"] = {"rope", {head_dim = head_dim, angles = "f16"}},
  xpos = {"xpos", {head_dim = head_dim, scale_base = 2048}},
  alibi = {"alibi", {heads = 1}},
  t5 = {"t5", {heads = 1, seed = 1}},
}
local order = {
  "none", "sinusoidal", "learned", "rope", "rope-5e5", "rope-f32", "rope-f16", "xpos", "alibi",
  "t5",
}

-- What the encoding's score adds for a query at position i and a key at position j, in f64. The
-- score function itself runs in f32 and counts tokens, not positions.
local function bias(pe, i, j)
  if pe.slopes then return -pe.slopes:tolist()[1] * (i - j) end
  return pe.table[pe:bucket(j - i) + 1]:tolist()[1]
end

-- Whether trained rows are added to embeddings; T5's table is read by its score.
local function has_trained_rows(pe) return pe.table ~= nil and pe.score == nil end

-- Scores [tokens][tokens] of tokens at positions first, first + 1, .. Trained rows are scaled to
-- the size of the tokens.
local function scores(pe, first, seed)
  local function random(n, m, s, std)
    return attune.randn({n, m}, {seed = s, dtype = "f64", std = std})
  end
  local positions = attune.arange(first, first + tokens - 1, 1, {dtype = "i64"})
  local x = random(tokens, head_dim, seed, 1):view(1, tokens, head_dim)
  local rows = pe:embed(x * 0, positions)
  if has_trained_rows(pe) then rows = rows * 50 end
  x = (x + rows):view(tokens, head_dim)
  local q = attune.matmul(
    x, random(head_dim, head_dim, seed + 1, head_dim ^ -0.5)
  ):view(1, 1, tokens, head_dim)
  local k = attune.matmul(
    x, random(head_dim, head_dim, seed + 2, head_dim ^ -0.5)
  ):view(1, 1, tokens, head_dim)
  local s = (
    attune.matmul(
      pe:rotate(q, positions, "q"), pe:rotate(k, positions, "k"):transpose(3, 4)
    ) * head_dim ^ -0.5
  ):tolist()[1][1]
  if pe.score then
    for i = 1, tokens do
      for j = 1, tokens do s[i][j] = s[i][j] + bias(pe, first + i - 1, first + j - 1) end
    end
  end
  return s
end

-- The max change over the root mean square; 2^-52 where nothing changed, which a logarithmic
-- axis can show.
local function change(a, b)
  local worst, square = 0, 0
  for i = 1, tokens do
    for j = 1, tokens do
      worst = math.max(worst, math.abs(a[i][j] - b[i][j]))
      square = square + a[i][j] ^ 2
    end
  end
  return math.max(worst / math.sqrt(square / tokens ^ 2), 2 ^ -52)
end

-- The score of a query and a key of ones at this distance, and the bound of section 3.4.3, each
-- divided by its value at distance 0.
local function decay(pe, distance)
  local ones = attune.ones({1, 1, 1, head_dim}, {dtype = "f64"})
  local theta, cosines, sines, bound = pe.inv_freq:tolist(), 0, 0, 0
  for n = 1, #theta do
    cosines = cosines + math.cos(distance * theta[n])
    sines = sines + math.sin(distance * theta[n])
    bound = bound + math.sqrt(cosines ^ 2 + sines ^ 2)
  end
  local product = attune.matmul(
    pe:rotate(ones, {distance}, "q"), pe:rotate(ones, {0}, "k"):transpose(3, 4)
  ):tolist()[1][1][1][1]
  return product / head_dim, bound / (#theta * (#theta + 1) / 2)
end

local absolute = {sinusoidal = true, learned = true}

return require "attune.experiment" {
  name = "rope_relative",
  about = "Which encodings keep the scores when all positions shift, and how does RoPE's "
    .. "product decay with the distance?",
  fixed = {},
  grid = {
    encoding = order,
    distance = {
      1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
      3072, 4096, 8192, 16384, 32768,
    },
  },
  quick = {
    distance = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768},
  },
  order = {"encoding", "distance"},
  timing = false,
  rounds = 1,
  metrics = {
    change = {
      better = "lower",
      about = "max change of a score when all positions shift by the distance, over the "
        .. "scores' root mean square; 2^-52 for no change",
    },
    product = {
      about = "score of a query and a key of ones at that distance, divided by that at distance 0",
    },
    bound = {
      about = "RoFormer's bound on the product, section 3.4.3, divided by that at distance 0",
    },
  },
  trial = function(p)
    local pe = attune.position(encodings[p.encoding][1], encodings[p.encoding][2])
    local product, bound
    if p.encoding == "rope" or p.encoding == "rope-5e5" then
      product, bound = decay(pe, p.distance)
    end
    return {
      change = change(scores(pe, 0, 7), scores(pe, p.distance, 7)),
      product = product,
      bound = bound,
    }
  end,
  plots = {
    {kind = "line", name = "shift", title = "Change of the scores when all positions shift",
      x = "distance", y = "change", by = "encoding", log = "xy", order = order,
      caption = "Absolute encodings change at once. RoPE changes by the rounding of its angles: "
        .. "negligible in f64, as large as the scores in f16. 2^-52: no change."},
    {kind = "line", name = "bound",
      title = "Long-distance decay of RoPE: the bound of RoFormer, section 3.4.3", x = "distance",
      y = "bound", by = "encoding", log = "x", order = order,
      where = {
        encoding = {"rope", "rope-5e5"},
      },
      caption = "It falls over the first hundreds of tokens, later with a "
        .. "larger base, and then fluctuates."},
    {kind = "line", name = "product", title = "Product of a query and a key of ones",
      x = "distance", y = "product", by = "encoding", log = "x", order = order,
      where = {
        encoding = {"rope", "rope-5e5"},
      }, caption = "The mean cosine over the pairs; it may fall below 0."},
  },
  claims = {
    {"Relative encodings keep the scores to 1e-9, whatever the shift", function(r)
      local worst = 0
      for _, encoding in ipairs {"none", "rope", "rope-5e5", "xpos", "alibi", "t5"} do
        for _, change_ in ipairs(r:where {encoding = encoding}:values "change") do
          worst = math.max(worst, change_)
        end
      end
      return worst < 1e-9, ("at most %.1g"):format(worst)
    end},
    {"Absolute encodings change the scores by more than "
      .. "a tenth from a shift of one token on", function(r)
      local min = math.huge
      for encoding in pairs(absolute) do
        for _, change_ in ipairs(r:where {encoding = encoding}:values "change") do
          min = math.min(min, change_)
        end
      end
      return min > 0.1 and min < math.huge, ("at least %.2g"):format(min)
    end},
    {"Angles in f16 change the scores by more than half from 2048 tokens on", function(r)
      local min = math.huge
      for _, distance in ipairs {2048, 4096, 32768} do
        for _, change_ in ipairs(
          r:where {encoding = "rope-f16", distance = distance}:values "change"
        ) do
          min = math.min(min, change_)
        end
      end
      return min > 0.5 and min < math.huge, ("at least %.2g"):format(min)
    end},
    {"RoPE's bound falls to a quarter within 512 tokens, and is higher with base 500000 "
      .. "at every distance up to there", function(r)
      local function bound(encoding, distance)
        return r:where {encoding = encoding, distance = distance}:values "bound"[1]
      end
      local good = bound("rope", 512) < bound("rope", 1) / 4
      for _, distance in ipairs {1, 2, 4, 8, 16, 32, 64, 128, 256, 512} do
        good = good and bound("rope", distance) < bound("rope-5e5", distance)
      end
      return good,
        ("%.3f at 1 token, %.3f at 512; base 500000: %.3f"):format(
          bound("rope", 1), bound("rope", 512), bound("rope-5e5", 512)
        )
    end},
  },
}
