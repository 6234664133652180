--- Does multi-query attention keep the quality of multi-head attention, at equal parameters?
--
-- Trains byte-level models of 96 dims, 4 layers and 8 heads of 16 on one text: multi-head
-- attention, multi-query, multi-query with d_ff widened until the parameters are equal (Shazeer
-- 2019, section 4), grouped-query with 4 and 2 kv heads, and Shazeer's controls, which save as much
-- memory in other ways: one head, and eight heads of 2 dims. All start from the same seeds, and
-- share the initial values that they can share. Three learning rates are tried with the first seed;
-- the other seeds train with the rate `main`, and a claim says whether it is the best of all.
--
-- Quality is set against the bytes of the cache per token, and against the seconds of a decoded
-- token of one layer with these heads at 8192 tokens. `make corpus` installs the text; `--set
-- path=FILE` trains on another one. `--set size=full` trains 256 dims and 6 layers, overnight.
local attune = require "attune"
local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"
local study = train.study

local sizes = {
  tiny = {d_model = 16, layers = 2, context = 32, batch = 4, tokens = 512, rows = 4},
  quick = {d_model = 32, layers = 2, context = 64, batch = 8, tokens = 163840, rows = 80},
  study = {d_model = 96, layers = 4, context = 128, batch = 32, tokens = 4 << 20, rows = 3200},
  full = {d_model = 256, layers = 6, context = 256, batch = 16, tokens = 32 << 20, rows = 1600},
}
local heads, head_dim = 8, 16
local main = 8e-3 -- the rate of all seeds

-- What each variant changes; `matched`: d_ff grows until the parameters are MHA's; `few`: trained
-- with the first four seeds.
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
  local options = {
    vocab = 256, d_model = size.d_model, layers = size.layers, heads = heads, head_dim = head_dim,
    d_ff = 4 * size.d_model, context = size.context, position = "rope", mlp = "gelu",
    norm = "rmsnorm", seed = p.seed,
  }
  local change = variant.change or {}
  if variant.matched then return nn.match {reference = options, change = change} end
  for name, value in pairs(change) do options[name] = value end
  return options
end

-- Seconds of a decoded token of one layer with the model's heads, at 8192 tokens.
local function decode_seconds(c, t)
  local context, kv_heads = 8192, c.kv_heads or c.heads
  local cache = attune.cache {kv_heads = kv_heads, head_dim = c.head_dim, capacity = context}
  local k = attune.randn({1, kv_heads, context - 1, c.head_dim}, {seed = 1})
  cache:append(k, k)
  local q = attune.randn({1, c.heads, 1, c.head_dim}, {seed = 2})
  local next_k = k:slice(3, 1, 1)
  return t:time(function()
    cache:append(next_k, next_k)
    cache:attend(q)
    cache:truncate(context - 1)
  end, {budget = 0.1, least = 5})
end

local function train_model(p, t, c, training, validation)
  local size = sizes[p.size]
  local function loader(corpus, order)
    return data.loader {
      corpus = corpus, tokens = size.context, batch = size.batch, seed = p.seed, order = order,
    }
  end
  local model = nn.Decoder(c)
  local result = study.train(t, {
    model = model, data = loader(training, "shuffled"), lr = p.lr, seed = p.seed,
    steps = size.tokens // (size.context * size.batch),
  })
  local found = train.evaluate(model, loader(validation, "sequential"), {
    batches = size.rows // size.batch,
  })
  return found, model:count(), study.curve(result.losses, 100)
end

-- All variants against MHA, at the rate that all seeds have.
local function against_mha(r, metric, what)
  return r:where {lr = main}:family(metric, {variant = "MHA"}, what)
end

-- Whether `main` is the best of the rates for each variant that was tried with several.
local function common_rate(r)
  local best, tried, others = {}, {}, {}
  for _, point in ipairs(r.points) do
    local loss, p = point.metrics.loss, point.parameters
    if loss then
      tried[p.variant] = (tried[p.variant] or 0) + 1
      local first = loss.values[1] -- the first seed, with which all rates are tried
      if not best[p.variant] or first < best[p.variant].loss then
        best[p.variant] = {loss = first, lr = p.lr}
      end
    end
  end
  local compared
  for name, count in pairs(tried) do
    compared = compared or count > 1
    if count > 1 and best[name].lr ~= main then
      others[#others + 1] = ("%s: %g"):format(name, best[name].lr)
    end
  end
  if not compared then return nil, "this run has one rate" end
  table.sort(others)
  return #others == 0, #others > 0 and "best elsewhere: " .. table.concat(others, ", ") or nil
end

return require "attune.experiment" {
  name = "quality_mqa",
  about = "Does multi-query attention keep the quality of multi-head attention at equal "
    .. "parameters?",
  fixed = {size = "study", path = "bible"},
  grid = {
    variant = {"MHA", "MQA", "MQA matched", "GQA-4", "GQA-2", "one head", "narrow heads"},
    lr = {4e-3, main, 1.6e-2},
  },
  seeds = {1, 2, 3, 4, 5, 6, 7, 8},
  derived = {text = function(p) return study.fingerprint(p.path) end},
  order = {"variant", "lr", "size", "path", "text"},
  quick = {variant = {"MHA", "MQA", "MQA matched"}, lr = {main}, seeds = {1, 2}, size = {"quick"}},
  timeout = 24 * 3600,
  metrics = {
    bits_per_byte = study.metrics.bits_per_byte,
    loss = {unit = "nat", better = "lower", about = "of validation text, per byte"},
    parameters = {unit = "1", better = "lower", about = "of the model"},
    cache_bytes = {unit = "B", better = "lower", about = "K and V of one token, all layers, f32"},
    decode_seconds = {
      unit = "s", better = "lower", about = "a decoded token of one layer at 8192 tokens",
    },
    curve = study.metrics.curve,
  },
  trial = function(p, t)
    if p.lr ~= main and p.seed > 1 then return nil, "other rates are tried with the first seed" end
    if variants[p.variant].few and p.seed > few_seeds then
      return nil, ("this variant is trained with %d seeds"):format(few_seeds)
    end
    local training, validation = study.text(p.path)
    if not training then return nil, validation end
    local c = options_of(p)
    local found, parameters, curve = train_model(p, t, c, training, validation)
    return {
      bits_per_byte = found.bits_per_byte, loss = found.loss, parameters = parameters,
      curve = curve,
      cache_bytes = 2 * 4 * c.layers * (c.kv_heads or c.heads) * c.head_dim,
      decode_seconds = p.lr == main and p.seed == 1 and decode_seconds(c, t) or nil,
    }
  end,
  plots = {
    {kind = "pareto", name = "cache", x = "cache_bytes", y = "bits_per_byte", by = "variant",
      where = {lr = main}, title = "Quality against the cache", log = "x"},
    {kind = "pareto", name = "decode", x = "decode_seconds", y = "bits_per_byte", by = "variant",
      where = {lr = main}, title = "Quality against the time of a decoded token", log = "x"},
    {kind = "line", name = "curves", y = "curve", along = "hundredths of the training",
      by = "variant", where = {lr = main}, title = "Training loss, with 95% intervals over seeds"},
    {kind = "bars", name = "rates", x = "variant", y = "bits_per_byte", by = "lr",
      title = "Learning rates"},
  },
  claims = {
    {"MQA with as many parameters is within 1% of MHA in bits per byte", function(r)
      return against_mha(r, "bits_per_byte", "ratio"):of "MQA matched":within(0.99, 1.01)
    end, source = "Shazeer 2019, ln perplexity 1.439 / 1.424", paper = 1.0105},
    {"MQA where d_ff stays costs bits per byte", function(r)
      return against_mha(r, "bits_per_byte", "difference"):of "MQA":above(0)
    end, source = "public ablations, 0.003 for each halving of kv heads", paper = 0.009},
    {"The three halvings of MQA cost less than 0.03 bits per byte", function(r)
      return against_mha(r, "bits_per_byte", "difference"):of "MQA":below(0.03)
    end, source = "public ablations, 0.003 for each halving of kv heads", paper = 0.009},
    {"GQA with 4 of 8 kv heads differs from MHA", function(r)
      return against_mha(r, "bits_per_byte", "difference"):of "GQA-4":differs()
    end, source = "public ablations, one halving of kv heads", paper = 0.003},
    {"At equal parameters one head costs more than MQA", function(r)
      return r:where {lr = main}:family("loss", {variant = "MQA matched"}, "difference")
        :of "one head":above(0)
    end, source = "Shazeer 2019, ln perplexity 1.518 - 1.439", paper = 0.079},
    {"At equal parameters eight narrow heads cost more than MQA", function(r)
      return r:where {lr = main}:family("loss", {variant = "MQA matched"}, "difference")
        :of "narrow heads":above(0)
    end, source = "Shazeer 2019, ln perplexity 1.513 - 1.439", paper = 0.074},
    {"One learning rate is the best of three for every variant", common_rate,
      source = "public ablations: the best rate is unchanged"},
    {"The cache of MQA is an eighth of MHA's", function(r)
      if #r:where {lr = main}:values "cache_bytes" == 0 then return nil, "this run has no model" end
      return r:where {lr = main}:ratio("cache_bytes", {variant = "MHA"}, {variant = "MQA"})
        :within(7.999, 8.001)
    end},
  },
}
