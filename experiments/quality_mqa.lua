--- Does multi-query attention keep the quality of multi-head attention, at equal parameters?
--
-- Trains byte-level models of 96 dims, 4 layers and 8 heads of 16 on one text: multi-head
-- attention, multi-query, multi-query with d_ff widened until the parameters are equal (Shazeer
-- 2019, section 4), grouped-query with 4 and 2 kv heads, and Shazeer's controls, which save as much
-- memory in other ways: one head, and eight heads of 2 dims. All start from the same seeds, and
-- share the initial values that they can share. Three learning rates are tried with the first seed;
-- the other seeds train with the rate `main`, and the table shows whether it is the best of all.
--
-- Quality is set against the bytes of the cache per token, and against the seconds of a decoded
-- token of one layer with these heads at 8192 tokens. `make corpus` installs the text; `--set
-- path=FILE` trains on another one. `--set size=full` trains 256 dims and 6 layers, overnight.
local attune = require "attune"
local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"

local sizes = {
  quick = {d_model = 32, layers = 2, context = 64, batch = 8, tokens = 163840},
  study = {d_model = 96, layers = 4, context = 128, batch = 32, tokens = 4 << 20},
  full = {d_model = 256, layers = 6, context = 256, batch = 16, tokens = 32 << 20},
}
local heads, head_dim = 8, 16
local main = 2e-3 -- the rate of all seeds

-- What each variant changes; `matched`: d_ff grows until the parameters are MHA's.
local variants = {
  ["MHA"] = {},
  ["MQA"] = {change = {kv_heads = 1}},
  ["MQA matched"] = {change = {kv_heads = 1}, matched = true},
  ["GQA-4"] = {change = {kv_heads = 4}, few = true},
  ["GQA-2"] = {change = {kv_heads = 2}, few = true},
  ["one head"] = {change = {heads = 1, kv_heads = 1}, matched = true, few = true},
  ["narrow heads"] = {change = {head_dim = 2}, matched = true, few = true},
}
local few_seeds = 4

local function options_of(p)
  local size, variant = sizes[p.size], variants[p.variant]
  local reference = {
    vocab = 256, d_model = size.d_model, layers = size.layers, heads = heads, head_dim = head_dim,
    d_ff = 4 * size.d_model, context = size.context, position = "rope", mlp = "gelu",
    norm = "rmsnorm", seed = p.seed,
  }
  local change = variant.change or {}
  if variant.matched then return nn.match {reference = reference, change = change} end
  for name, value in pairs(change) do reference[name] = value end
  reference.kv_heads = math.min(reference.kv_heads or heads, reference.heads)
  return reference
end

local function path_of(p)
  if p.path ~= "bible" then return p.path end
  return data.corpus "bible"
end

-- The first digits of the text's sha256, so that results of different texts never mix.
local function fingerprint(p)
  local path = path_of(p)
  local corpus = path and data.bytes(path)
  return corpus and corpus.sha256:sub(1, 12) or "missing"
end

-- Seconds of a decoded token of one layer with the model's heads, at 8192 tokens.
local function decode_seconds(c, t)
  local context = 8192
  local cache = attune.cache {
    kv_heads = c.kv_heads or c.heads, head_dim = c.head_dim, capacity = context,
  }
  local k = attune.randn({1, c.kv_heads or c.heads, context - 1, c.head_dim}, {seed = 1})
  cache:append(k, k)
  local q = attune.randn({1, c.heads, 1, c.head_dim}, {seed = 2})
  local next_k = k:slice(3, 1, 1)
  return t:time(function()
    cache:append(next_k, next_k)
    cache:attend(q)
    cache:truncate(context - 1)
  end, {budget = 0.1, least = 5})
end

local function train_model(p, c, corpus)
  local size = sizes[p.size]
  local training, validation = corpus:split {validation = 0.1, seed = 1}
  local function loader(part, order)
    return data.loader {
      corpus = part, tokens = size.context, batch = size.batch, seed = p.seed, order = order,
    }
  end
  local steps = size.tokens // (size.context * size.batch)
  local model = nn.Decoder(c)
  assert(train.run {
    model = model, data = loader(training, "shuffled"), steps = steps, clip = 1, seed = p.seed,
    optimizer = {betas = {0.9, 0.95}, weight_decay = 0.1, lr = p.lr}, log = false,
    schedule = {kind = "cosine", warmup = math.max(1, steps // 20), min = p.lr / 10},
  })
  local found = train.evaluate(model, loader(validation, "sequential"), {
    batches = p.size == "quick" and 10 or 100,
  })
  return found, model:count()
end

local function difference(variant)
  return function(r)
    return r:where {lr = main}:difference("bits_per_byte", {variant = variant}, {variant = "MHA"})
  end
end

return require "attune.experiment" {
  name = "quality_mqa",
  about = "Does multi-query attention keep the quality of multi-head attention at equal "
    .. "parameters?",
  fixed = {size = "study", path = "bible"},
  grid = {
    variant = {"MHA", "MQA", "MQA matched", "GQA-4", "GQA-2", "one head", "narrow heads"},
    lr = {1e-3, main, 4e-3},
  },
  seeds = {1, 2, 3, 4, 5, 6, 7, 8},
  derived = {text = fingerprint},
  order = {"variant", "lr", "size", "path", "text"},
  quick = {variant = {"MHA", "MQA", "MQA matched"}, lr = {main}, seeds = {1, 2}, size = {"quick"}},
  timeout = 24 * 3600,
  metrics = {
    bits_per_byte = {
      unit = "bit/B", better = "lower", about = "of validation text, windows of the trained length",
    },
    loss = {unit = "nat", better = "lower", about = "of validation text, per byte"},
    parameters = {unit = "1", better = "lower", about = "of the model"},
    cache_bytes = {unit = "B", better = "lower", about = "K and V of one token, all layers, f32"},
    decode_seconds = {
      unit = "s", better = "lower", about = "a decoded token of one layer at 8192 tokens",
    },
  },
  trial = function(p, t)
    local path, why = path_of(p)
    if not path then return nil, why end
    if p.lr ~= main and p.seed > 1 then return nil, "other rates are tried with the first seed" end
    if variants[p.variant].few and p.seed > few_seeds then
      return nil, ("this variant is trained with %d seeds"):format(few_seeds)
    end
    local corpus = assert(data.bytes(path, {separator = "\n\n"}))
    local c = options_of(p)
    local found, parameters = train_model(p, c, corpus)
    return {
      bits_per_byte = found.bits_per_byte, loss = found.loss, parameters = parameters,
      cache_bytes = 2 * 4 * c.layers * (c.kv_heads or c.heads) * c.head_dim,
      decode_seconds = p.lr == main and p.seed == 1 and decode_seconds(c, t) or nil,
    }
  end,
  plots = {
    {kind = "pareto", name = "cache", x = "cache_bytes", y = "bits_per_byte", by = "variant",
      where = {lr = main}, title = "Quality against the cache", log = "x"},
    {kind = "pareto", name = "decode", x = "decode_seconds", y = "bits_per_byte", by = "variant",
      where = {lr = main}, title = "Quality against the time of a decoded token", log = "x"},
    {kind = "bars", name = "rates", x = "variant", y = "bits_per_byte", by = "lr",
      title = "Three learning rates"},
  },
  claims = {
    {"MQA with as many parameters is within 1% of MHA in bits per byte", function(r)
      return r:where {lr = main}:ratio("bits_per_byte", {variant = "MQA matched"},
        {variant = "MHA"}):within(0.99, 1.01)
    end, source = "Shazeer 2019, ln perplexity 1.439 / 1.424", paper = 1.0105},
    {"MQA costs bits per byte where d_ff stays", function(r)
      return difference "MQA"(r):above(0)
    end, source = "public ablations, 0.003 for each halving of kv heads", paper = 0.009},
    {"At equal parameters one head costs more than MQA", function(r)
      if #r:where {variant = "one head"}:values "loss" == 0 then
        return nil, "this run has no such variant"
      end
      return r:where {lr = main}:difference("bits_per_byte", {variant = "one head"},
        {variant = "MQA matched"}):above(0)
    end, source = "Shazeer 2019, ln perplexity 1.518 - 1.439", paper = 0.079},
    {"The cache of MQA is an eighth of MHA's", function(r)
      return r:where {lr = main}:ratio("cache_bytes", {variant = "MHA"}, {variant = "MQA"})
        :within(7.999, 8.001)
    end},
  },
}
