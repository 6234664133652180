--- Is attention over packed documents the same as over each document alone? And what does packing
--- save?
--
-- attune.pack puts short documents into rows of one length, first-fit decreasing. Positions then
-- restart in each document, or they run on through the row. Documents are kept apart (by `lengths`,
-- or by the mask program attune.masks.documents), or they are not.
--   kept apart, restarted: results are equal for every encoding, forward and backward.
--   kept apart, running:   relative encodings depend on position differences, which are equal;
--                          absolute encodings get other positions.
--   not kept apart:        queries attend to earlier documents too. The scores inside a document
--                          are still equal where positions restart or the encoding is relative.
-- One layer: x gets its embedding and is multiplied by three matrices, q and k are rotated, and
-- attention is causal. A difference is the maximum absolute difference over the root mean square of
-- the results of the documents alone, in f32.
-- Krell et al. 2021 (arXiv 2107.02027) pack with masks and restarted positions, as documents must
-- not see each other. For an experiment of your own add a line to `encodings`.
local attune = require "attune"

local heads, head_dim = 4, 32
local d_model = heads * head_dim

local encodings = {
  none = {},
  rope = {head_dim = head_dim},
  alibi = {heads = heads},
  t5 = {heads = heads, seed = 3},
  xpos = {head_dim = head_dim},
  learned = {d_model = d_model, max_positions = 512, seed = 4},
  sinusoidal = {d_model = d_model},
}
local order = {"none", "rope", "alibi", "t5", "xpos", "learned", "sinusoidal"}
local absolute = {learned = true, sinusoidal = true}
-- The number of documents for attention, and for the fraction of padding.
local attended, counted = 40, 1000

-- Documents of at most 256 tokens each.
local draws = {
  ["log-normal"] = function(u)
    return math.exp(4 + 0.8 * math.sqrt(-2 * math.log(1 - u[1])) * math.cos(2 * math.pi * u[2]))
  end,
  uniform = function(u) return 1 + 256 * u[1] end,
  equal = function() return 100 end,
}

local function documents(kind, count)
  local list, u = {}, attune.uniform({count, 2}, {seed = 5, dtype = "f64"}):tolist()
  for n = 1, count do
    list[n] = {}
    for k = 1, math.max(1, math.min(256, math.floor(draws[kind](u[n])))) do list[n][k] = k end
  end
  return list
end

-- Whether a point computes attention, beside the fraction of padding.
local function attends(p) return p.capacity == 512 and p.lengths == "log-normal" end

local function wasted(p)
  local list, used = documents(p.lengths, counted), 0
  for _, ids in ipairs(list) do used = used + #ids end
  return 100 * attune.pack(list, {capacity = p.capacity}).waste,
    100 * (1 - used / (#list * p.capacity))
end

local function matrices()
  local w = {}
  for n = 1, 3 do w[n] = attune.randn({d_model, d_model}, {seed = 10 + n, std = d_model ^ -0.5}) end
  return w
end

-- Only encodings that rotate q and k have frequencies.
local function rotates(pe) return pe.inv_freq ~= nil end

-- Whether trained rows are added to embeddings; T5's table is read by its score.
local function has_trained_rows(pe) return pe.table ~= nil and pe.score == nil end

-- x plus the positions' rows. Trained rows are scaled to the size of the tokens.
local function embedded(pe, x, positions)
  local rows = pe:embed(x * 0, positions)
  if has_trained_rows(pe) then rows = rows * 50 end
  return x + rows
end

-- One layer with its gradients. x [rows, tokens, d_model], positions [rows, tokens], d_o and o
-- [rows, heads, tokens, head_dim], dx [rows, 1, tokens, d_model]. options.score is the encoding's
-- score; it reads `positions` where those differ from the token indices.
local function layer(pe, w, x, d_o, positions, options)
  local rows, tokens = x.shape[1], x.shape[2]
  local function split(t) return t:view(rows, tokens, heads, head_dim):transpose(2, 3) end
  local function joined(t) return t:transpose(2, 3):contiguous():view(rows * tokens, d_model) end
  local flat = embedded(pe, x, positions):contiguous():view(rows * tokens, d_model)
  local q = split(attune.matmul(flat, w[1]))
  local k = split(attune.matmul(flat, w[2]))
  local v = split(attune.matmul(flat, w[3]))
  options.causal = true
  if rotates(pe) then
    options.rotate, options.positions = pe, positions
  end
  local o, lse = attune.attention(q, k, v, options)
  local dq, dk, dv, dtables = attune.attention_backward(d_o, q, k, v, o, lse, options)
  local dx = attune.matmul(joined(dq), w[1]:transpose(1, 2))
    + attune.matmul(joined(dk), w[2]:transpose(1, 2))
    + attune.matmul(joined(dv), w[3]:transpose(1, 2))
  return {
    o = o,
    dx = dx:view(rows, 1, tokens, d_model),
    dtable = pe.table and dtables and dtables[pe.table],
    q = pe:rotate(q, positions, "q"),
    k = pe:rotate(k, positions, "k"),
  }
end

-- Adds a comparison of a with b to a sum: max squared difference, sum of squares and count of b.
local function compare(sum, a, b)
  local d, count = a - b, 1
  for _, n in ipairs(b.shape) do count = count * n end
  sum.worst = math.max(sum.worst or 0, (d * d):max():item())
  sum.squares = (sum.squares or 0) + (b * b):sum():item()
  sum.count = (sum.count or 0) + count
end

local function relative(sum) return math.sqrt(sum.worst / (sum.squares / sum.count)) end

-- The score function of an encoding for tokens at these positions [rows, tokens].
local function at_positions(pe, positions)
  return function(s, at)
    return pe.score(s, {h = at.h, i = positions[at.b][at.i], j = positions[at.b][at.j]})
  end
end

local function running(rows, tokens)
  return attune.arange(tokens):to "i64":view(1, tokens):expand(rows, tokens):contiguous()
end

-- Two tensors over the tokens: 1 for tokens of documents and 0 for padding; the index of each
-- token's document in its row.
local function marks(packed, rows, capacity)
  local real, ids = {}, {}
  for r = 1, rows do
    real[r], ids[r] = {}, {}
    for k, size in ipairs(packed.lengths[r]) do
      for _ = 1, size do
        real[r][#real[r] + 1] = packed.documents[r][k] and 1 or 0
        ids[r][#ids[r] + 1] = k
      end
    end
  end
  return attune.tensor(real, {dtype = "f32"}):view(rows, 1, capacity, 1),
    attune.tensor(ids, {dtype = "i32"})
end

-- Max differences between packed documents and each document alone, over the root mean square:
-- outputs, gradients of x, products of rotated q and k inside a document, gradient of T5's table.
local function differences(p)
  local packed = attune.pack(documents(p.lengths, attended), {capacity = p.capacity})
  local rows = packed.ids.shape[1]
  local pe, w = attune.position(p.encoding, encodings[p.encoding]), matrices()
  local x = attune.randn({rows, p.capacity, d_model}, {seed = 6})
  local real, ids = marks(packed, rows, p.capacity)
  local d_o = attune.randn({rows, heads, p.capacity, head_dim}, {seed = 7}) * real
  local positions = p.positions == "restarted" and packed.positions or running(rows, p.capacity)
  local options = {score = pe.score and at_positions(pe, positions)}
  if p.apart == "lengths" then options.lengths = packed.lengths end
  if p.apart == "mask" then options.mask = attune.masks.documents(ids) end
  local all = layer(pe, w, x, d_o, positions, options)

  local forward, backward, scores, dtable = {}, {}, {}, nil
  for r = 1, rows do
    local first = 1
    for k = 1, #packed.documents[r] do
      local last = first + packed.lengths[r][k] - 1
      local function part(t, axis) return t:slice(1, r, r):slice(axis, first, last) end
      local alone = layer(
        pe, w, part(x, 2), part(d_o, 3),
        attune.arange(last - first + 1):to "i64":view(1, last - first + 1), {score = pe.score}
      )
      compare(forward, part(all.o, 3), alone.o)
      compare(backward, part(all.dx, 3), alone.dx)
      compare(
        scores, attune.matmul(part(all.q, 3), part(all.k, 3):transpose(3, 4)),
        attune.matmul(alone.q, alone.k:transpose(3, 4))
      )
      if alone.dtable then dtable = dtable and dtable + alone.dtable or alone.dtable end
      first = last + 1
    end
  end
  local of_table
  if dtable then
    of_table = {}
    compare(of_table, all.dtable, dtable)
  end
  return relative(forward), relative(backward), relative(scores), of_table and relative(of_table)
end

-- The max, the min and the number of a metric's values at the points that `keep` keeps.
local function range(r, metric, keep)
  local max, min, count = 0, math.huge, 0
  for _, point in ipairs(r.points) do
    local value = point.metrics[metric] and point.metrics[metric].median
    if value and keep(point.parameters) then
      max, min, count = math.max(max, value), math.min(min, value), count + 1
    end
  end
  return max, min, count
end

return require "attune.experiment" {
  name = "packing",
  about = "Is attention over packed documents the same as over each document alone, for every "
    .. "encoding, and what does packing save compared with padding?",
  grid = {
    encoding = order,
    positions = {"restarted", "running"},
    apart = {"lengths", "mask", "no"},
    lengths = {"log-normal", "uniform", "equal"},
    capacity = {256, 512, 1024, 2048, 4096},
  },
  -- Attention with one capacity and one kind of lengths; the waste depends on these alone.
  where = function(p)
    local first = p.encoding == "none" and p.positions == "restarted" and p.apart == "lengths"
    return attends(p) or first
  end,
  derived = {documents = function(p) return attends(p) and attended or counted end},
  order = {"encoding", "positions", "apart", "lengths", "capacity", "documents"},
  timing = false,
  rounds = 1,
  metrics = {
    forward = {
      better = "lower",
      about = "max difference of an output from the document alone, over "
        .. "the root mean square of outputs",
    },
    backward = {better = "lower", about = "the same for the gradient of the layer's input"},
    table_gradient = {
      better = "lower",
      about = "the same for the gradient of T5's table, summed over the documents",
    },
    products = {
      better = "lower",
      about = "the same for the products of q and k inside a document, before a bias",
    },
    waste = {
      unit = "%", better = "lower", about = "percentage of padding tokens, packed documents",
    },
    padding = {unit = "%", better = "lower", about = "the same where each document has a row"},
  },
  trial = function(p)
    local waste, padding = wasted(p)
    local forward, backward, products, table_gradient
    if attends(p) then forward, backward, products, table_gradient = differences(p) end
    return {
      forward = forward, backward = backward, products = products, table_gradient = table_gradient,
      waste = waste, padding = padding,
    }
  end,
  plots = {
    {kind = "heat", name = "outputs", facet = "positions",
      title = "Difference of outputs from each document alone", x = "apart", y = "encoding",
      value = "forward", where = {documents = attended},
      caption = "Documents kept apart by lengths, by a mask program, or not. Kept apart, encodings "
        .. "differ by rounding only, except that with running positions absolute encodings get "
        .. "other positions. Not kept apart, queries attend to the documents before their own."},
    {kind = "heat", name = "gradients", facet = "positions",
      title = "The same for the gradients of the layer's input", x = "apart", y = "encoding",
      value = "backward", where = {documents = attended}},
    {kind = "heat", name = "products",
      title = "Products of q and k inside a document, not kept apart", x = "positions",
      y = "encoding", value = "products", where = {apart = "no", documents = attended},
      caption = "How other documents change a document's own scores: not at all, except with "
        .. "absolute encodings and running positions."},
    {kind = "line", name = "waste",
      title = "Tokens wasted: packed, and padded to one row per document", x = "capacity",
      y = "waste", also = "padding", by = "lengths", log = "x",
      where = {encoding = "none", positions = "restarted", apart = "lengths"},
      caption = "First-fit decreasing, 1000 documents of at most 256 tokens."},
  },
  claims = {
    {"Kept apart with restarted positions, packed equals alone to 1e-4 for every "
      .. "encoding, forward and backward", function(r)
      local function keep(p) return p.positions == "restarted" and p.apart ~= "no" end
      local forward, _, count = range(r, "forward", keep)
      local backward = range(r, "backward", keep)
      return forward < 1e-4 and backward < 1e-4 and count > 0,
        ("at most %.1g and %.1g"):format(forward, backward)
    end},
    {"Kept apart with running positions, packed equals alone for relative "
      .. "encodings: none, rope, alibi, t5, xpos", function(r)
      local function keep(p)
        return p.positions == "running" and p.apart ~= "no" and not absolute[p.encoding]
      end
      local forward, _, count = range(r, "forward", keep)
      local backward = range(r, "backward", keep)
      return forward < 1e-4 and backward < 1e-4 and count > 0,
        ("at most %.1g and %.1g"):format(forward, backward)
    end},
    {"The gradient of T5's table is the sum of the documents' gradients, with "
      .. "restarted and with running positions", function(r)
      local max, _, count = range(r, "table_gradient", function(p) return p.apart ~= "no" end)
      return max < 1e-4 and count > 0, ("at most %.1g"):format(max)
    end},
    {"Kept apart with running positions, learned and sinusoidal change outputs and "
      .. "gradients by more than a tenth", function(r)
      local function keep(p)
        return p.positions == "running" and p.apart ~= "no" and absolute[p.encoding]
      end
      local _, forward, count = range(r, "forward", keep)
      local _, backward = range(r, "backward", keep)
      return forward > 0.1 and backward > 0.1 and count > 0,
        ("at least %.2g and %.2g"):format(forward, backward)
    end},
    {"Not kept apart, every encoding changes outputs "
      .. "by more than a tenth, restarted or running", function(r)
      local _, min, count = range(r, "forward", function(p) return p.apart == "no" end)
      return min > 0.1 and count > 0, ("at least %.2g"):format(min)
    end},
    {"Not kept apart, the products inside a document stay the same, except for learned and "
      .. "sinusoidal with running positions", function(r)
      local function changes(p)
        return p.positions == "running" and absolute[p.encoding] or false
      end
      local max, _, kept = range(r, "products", function(p) return not changes(p) end)
      local _, min, changed = range(r, "products", changes)
      return max < 1e-4 and min > 0.1 and kept > 0 and changed > 0,
        ("at most %.1g, else at least %.2g"):format(max, min)
    end},
    {"From 1024 tokens on, packing documents of at most 256 wastes less "
      .. "than 5%, padding more than 70%", function(r)
      local waste, _, count = range(r, "waste", function(p)
        return p.capacity >= 1024 and p.capacity <= 4096
      end)
      local _, padding = range(r, "padding", function(p)
        return p.capacity >= 1024 and p.capacity <= 4096
      end)
      return waste < 5 and padding > 70 and count > 0,
        ("at most %.2g%%, at least %.3g%%"):format(waste, padding)
    end},
  },
}
