--- Where do attention heads look: near or far, at few keys or at many, at the first tokens?
--
-- attune.attention tells this beside its result, without the matrix of weights (option
-- `summaries`). Per query it gives the entropy of the weights, the mean distance to the keys and
-- the weight on the first 4 keys, and per key the weight that it receives from all queries.
--
-- By default queries and keys are random, so that causal order and the encoding alone decide. With
-- a model, a Hugging Face folder or a GGUF file (named after the script or by the environment
-- variable ATTUNE_MODEL), the model reads the file that ATTUNE_TEXT names (default: this script),
-- and its layers are compared:
--
--     attune run experiments/where_heads_look.lua smollm2.gguf --out results/smollm2
--
-- Of the first 24 tokens the whole map of weights is drawn too, per layer (the mean of its heads)
-- and per head of one layer. It comes from the summaries as well: the columns of a single query are
-- its weights.
--
-- For an experiment of your own add an encoding to `encodings`.
local attune = require "attune"

local path = os.getenv "ATTUNE_ARGUMENT" or os.getenv "ATTUNE_MODEL"
local text = os.getenv "ATTUNE_TEXT"
local summaries = {"entropy", "distance", "sinks", "columns"}
local heads, head_dim = 8, 64

local encodings = {
  none = {},
  rope = {head_dim = head_dim},
  alibi = {heads = heads},
  t5 = {heads = heads, seed = 4},
}

-- The mean over heads at one position, as a query or as a key; t [1, heads, positions].
local function at(t, position) return t:slice(3, position, position):mean():item() end

-- The weights of the last query over the distance 0, 1, .., the mean over heads.
local function profile(q, k, v, options)
  options.summaries = {"columns"}
  local tokens = q.shape[3]
  local _, _, s = attune.attention(q:slice(3, tokens, tokens), k, v, options)
  local weights, reversed = s.columns:mean(2):view(-1):tolist(), {}
  for i = tokens, 1, -1 do reversed[#reversed + 1] = weights[i] end
  return reversed
end

local function of_encoding(p)
  local pe = attune.position(p.encoding, encodings[p.encoding])
  local function random(seed) return attune.randn({1, heads, p.tokens, head_dim}, {seed = seed}) end
  local q, k, v = random(1), random(2), random(3)
  local options = {causal = true, rotate = pe, score = pe.score, summaries = summaries}
  local _, _, s = attune.attention(q, k, v, options)
  return {
    profile = p.position == p.tokens and profile(q, k, v, options) or nil,
    distance = at(s.distance, p.position), keys = at(s.entropy:exp(), p.position),
    first = at(s.sinks, p.position), received = at(s.columns, p.position),
  }
end

-- The ids of the first tokens of the text.
local function ids_of(model, tokens)
  local name = text or debug.getinfo(1, "S").source:sub(2)
  assert(model.tokenizer, "the model's folder has no tokenizer.json")
  local file = assert(io.open(name))
  local content = file:read "a"
  file:close()
  return table.move(model.tokenizer:encode(content), 1, math.min(tokens, model.limit or tokens), 1,
    {})
end

local side = 24

-- The weights of each head of a layer over the first tokens: side x side numbers per head.
local function maps(m, ids, layer)
  local s, list = m:session {context = side}, {}
  for t = 1, side do
    local _, blocks = s:append({ids[t]}, {summaries = {"columns"}})
    for h, row in ipairs(blocks[layer].columns:tolist()[1]) do
      list[h] = list[h] or {}
      for j = 1, side do table.insert(list[h], row[j] or 0) end
    end
  end
  s:close()
  return list
end

-- The map of one head, or with head 0 the mean over the heads.
local function map(m, ids, layer, head)
  local list = maps(m, ids, layer)
  if head > 0 then return list[head] end
  local mean = {}
  for n = 1, side * side do
    local sum = 0
    for _, cells in ipairs(list) do sum = sum + cells[n] end
    mean[n] = sum / #list
  end
  return mean
end

-- A number per head: the mean over the queries; of the columns the largest, per query.
local function of_layer(p)
  local m = assert(require "attune.model".load(path))
  local ids = ids_of(m, p.tokens)
  if p.head > 0 then return {map = map(m, ids, p.layer, p.head)} end
  local _, blocks = m:forward({ids}, {summaries = summaries})
  local s = blocks[p.layer]
  local function mean(t) return t:mean(3):tolist()[1] end
  return {
    distance = mean(s.distance), keys = mean(s.entropy:exp()), first = mean(s.sinks),
    received = (s.columns:max(3) / #ids):tolist()[1], map = map(m, ids, p.layer, 0),
  }
end

-- All layers with head 0, which stands for all heads, then the heads of a layer; that layer; a few
-- layers whose maps are drawn.
local function points_of_model()
  local network = assert(require "attune.model".load(path)).network
  if network.encoder then
    error(path .. ": expected a model without encoder, got one with an encoder", 0)
  end
  local blocks = network.blocks
  local list, drawn = {}, {}
  for i = 1, #blocks do list[i] = {layer = i, head = 0} end
  for n = 0, 5 do drawn[n + 1] = 1 + n * (#blocks - 1) // 5 end
  local middle = (#blocks + 1) // 2
  for head = 1, math.min(12, blocks[middle].attention.heads) do
    list[#list + 1] = {layer = middle, head = head}
  end
  return list, middle, drawn
end

local points, middle, drawn
if path then points, middle, drawn = points_of_model() end

local x = path and "layer" or "position"

local function plot(y, title, caption)
  return {kind = "line", name = y, title = title, x = x, y = y, caption = caption,
    by = not path and "encoding" or nil, log = not path and "xy" or nil,
    where = path and {head = 0} or nil}
end

-- All heads of a model at a glance.
local function by_head(y, title, log)
  return {kind = "heat", name = y .. "-by-head", title = title, x = "layer", along = "head",
    value = y, log = log, where = {head = 0}}
end

local function value(r, metric, encoding, position)
  return r:where {encoding = encoding, position = position}:values(metric)[1]
end

local claims = {
  {"Without an encoding the last query looks half the context back", function(r)
    local distance = value(r, "distance", "none", 4096)
    return math.abs(distance / 2047.5 - 1) < 0.1, ("%.0f tokens"):format(distance)
  end},
  {"ALiBi looks less than a tenth as far back", function(r)
    local alibi, none = value(r, "distance", "alibi", 4096), value(r, "distance", "none", 4096)
    return alibi < none / 10, ("%.0f and %.0f tokens"):format(alibi, none)
  end, source = "Press 2022"},
  {"Causal order alone gives early keys more weight: key 16 receives over three times what "
    .. "key 1024 receives", function(r)
    local early, late = value(r, "received", "none", 16), value(r, "received", "none", 1024)
    return early > 3 * late, ("%.2f and %.2f"):format(early, late)
  end},
}

return require "attune.experiment" {
  name = "where_heads_look",
  argument = "a model: a Hugging Face folder or a GGUF file",
  about = "Where do attention heads look, by position and encoding, or in a model by layer?",
  fixed = {tokens = path and 512 or 4096},
  grid = not path and {
    encoding = {"none", "rope", "alibi", "t5"},
    position = {4, 16, 64, 256, 1024, 4096},
  } or nil,
  list = points,
  order = path and {"layer", "head"} or {"encoding", "position"},
  timing = false,
  rounds = 1,
  metrics = {
    distance = {unit = "tokens", about = "mean distance of a query from its keys, by weight"},
    keys = {about = "exp(entropy): the keys of a uniform distribution of the same entropy"},
    first = {about = "weight on the first 4 keys"},
    received = {about = "weight that a key receives from all queries; of a layer: the most that "
      .. "one key receives, divided by the queries"},
    profile = {about = "weight of the last query at each distance"},
    map = {about = "weights of the first tokens: queries go down, keys to the right"},
  },
  trial = path and of_layer or of_encoding,
  plots = {
    plot("distance", "How far back heads look, in tokens",
      "Means over the heads. ALiBi's biases fall with the distance, at 8 rates."),
    plot("keys", "How many keys heads look at", "exp(entropy) of the weights."),
    plot("first", "Weight on the first 4 keys"),
    plot("received", "Weight that a key receives",
      "Early keys are visible to more queries, and to queries that see few other keys."),
    table.unpack(path and {
      by_head("distance", "How far back each head looks, in tokens", "value"),
      by_head("keys", "How many keys each head looks at", "value"),
      by_head("first", "Weight of each head on the first 4 keys"),
      {kind = "pixels", name = "layers", title = "Weights of the first 24 tokens, by layer",
        x = "layer", y = "map", where = {head = 0, layer = drawn},
        caption = "The mean over the heads. Queries go down, keys to the right."},
      {kind = "pixels", name = "heads",
        title = ("Weights of the first 24 tokens, heads of layer %d"):format(middle), x = "head",
        y = "map", where = {layer = middle, head = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
        caption = "Queries go down, keys to the right."},
    } or {
      {kind = "line", name = "profile", title = "Weight of the last query over the distance",
        y = "profile", along = "distance", by = "encoding", log = "xy",
        where = {position = 4096},
        caption = "The mean over 8 heads of random queries and keys; distances count from 1, the "
          .. "query itself."},
    }),
  },
  claims = not path and claims or nil,
}
