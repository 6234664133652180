--- How much can a model recall with fewer kv heads, a window, or linear attention, and how many
--- bytes of state does it keep for that?
--
-- Multi-query associative recall (Arora et al. 2023, arXiv 2312.04927): pairs of a key and a value,
-- then keys whose value is asked. Two layers of 4 heads with 4, 2 or 1 kv heads; with a window of a
-- quarter of the tokens; and FAVOR+. The state is what a decoder keeps at the end of a sequence: K
-- and V of all tokens or of the window, or the sums of linear attention, all layers, in f32.
-- Like Zoology's, the models have learned positions and no MLP; the sizes are cut: vocabulary 64 in
-- place of 8192, 48 tokens. All are trained for 9,000 steps of 16 sequences: of trainings of 3,000,
-- whose rate falls sooner, only four kv heads recalled. Recall comes suddenly, when the layers have
-- learned to work together; a variant that never gets there may need another training only.
--
-- Without recall a model can still tell which values have not been asked yet. Of n pairs it then
-- gets (1 + 1/2 + .. + 1/n) / n right: 52% of 4, 34% of 8, 26% of 12.
local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"
local study = train.study

local sizes = {
  tiny = {d_model = 16, vocab = 32, tokens = 24, batch = 8, steps = 4, tested = 1},
  quick = {d_model = 64, vocab = 32, tokens = 24, batch = 16, steps = 1200, tested = 4},
  study = {d_model = 64, vocab = 64, tokens = 48, batch = 16, steps = 9000, tested = 8},
}
local heads, layers = 4, 2

-- Each: the options of the model, from a size.
local variants = {
  ["4 kv heads"] = function() return {kv_heads = 4} end,
  ["2 kv heads"] = function() return {kv_heads = 2} end,
  ["1 kv head"] = function() return {kv_heads = 1} end,
  ["window"] = function(size) return {kv_heads = 4, window = size.tokens // 4} end,
  ["favor+ 32"] = function() return {linear = {features = "favor+", count = 32}} end,
  ["favor+ 64"] = function() return {linear = {features = "favor+", count = 64}} end,
}

local function options_of(p)
  local size = sizes[p.size]
  local options = variants[p.variant](size)
  local common = {
    vocab = size.vocab, d_model = size.d_model, layers = layers, heads = heads,
    context = size.tokens, position = "learned", mlp = "none", seed = p.seed,
    std = 0.62 / math.sqrt(size.d_model), -- larger than usual: it is learned earlier
  }
  for name, value in pairs(common) do options[name] = value end
  return options
end

-- Bytes that a decoder keeps for one sequence.
local function state_bytes(c, tokens)
  local head_dim, kv_heads = c.d_model // c.heads, c.kv_heads or c.heads
  if c.linear then return 4 * c.layers * kv_heads * c.linear.count * (head_dim + 1) end
  return 2 * 4 * c.layers * kv_heads * head_dim * math.min(tokens, c.window or tokens)
end

local function against(r, pairs_asked, reference)
  return r:where {pairs = pairs_asked}:family("recall", {variant = reference}, "difference")
end

return require "attune.experiment" {
  name = "recall_heads",
  about = "How much can a model recall with fewer kv heads, a window, or linear attention, for its "
    .. "bytes of state?",
  fixed = {size = "study", lr = 3e-3},
  grid = {
    variant = {"4 kv heads", "2 kv heads", "1 kv head", "window", "favor+ 32", "favor+ 64"},
    pairs = {4, 8, 12},
  },
  seeds = {1, 2, 3},
  order = {"variant", "pairs", "lr", "size"},
  quick = {size = {"quick"}, pairs = {6}, seeds = {1, 2}},
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    recall = {
      unit = "%", better = "higher", about = "values that are recalled, of new sequences",
    },
    state_bytes = {unit = "B", better = "lower", about = "of one sequence, all layers, f32"},
    curve = study.metrics.curve,
  },
  trial = function(p, t)
    local size = sizes[p.size]
    if 4 * p.pairs > size.tokens then return nil, "more pairs than the tokens have room for" end
    local function task(seed)
      return data.task("mqar", {
        vocab = size.vocab, tokens = size.tokens, pairs = p.pairs, seed = seed,
      })
    end
    local options = options_of(p)
    local model = nn.Decoder(options)
    local result = study.train(t, {
      model = model, data = task(p.seed), batch = size.batch, lr = p.lr, seed = p.seed,
      steps = size.steps, weight_decay = 0.01,
    })
    -- No seed of a training is as large.
    local recall = train.accuracy(model, task(p.seed + (1 << 53)), {
      batches = size.tested, batch = 64,
    })
    return {
      recall = 100 * recall, state_bytes = state_bytes(options, size.tokens),
      curve = study.curve(result.losses, 100),
    }
  end,
  plots = {
    {kind = "scatter", name = "state", x = "state_bytes", y = "recall", by = "variant",
      facet = "pairs", log = "x", title = "Recall against bytes of state"},
    {kind = "bars", name = "recall", x = "pairs", y = "recall", by = "variant",
      title = "Values that are recalled, by pairs"},
    {kind = "line", name = "curves", y = "curve", along = "hundredths of the training",
      by = "variant", where = {pairs = 8}, title = "Training loss with 8 pairs"},
  },
  claims = {
    {"One kv head recalls as much as four: within 2 points, 8 pairs", function(r)
      return against(r, 8, "4 kv heads"):of "1 kv head":within(-2, 2)
    end},
    {"Two kv heads recall as much as four: within 2 points, 8 pairs", function(r)
      return against(r, 8, "4 kv heads"):of "2 kv heads":within(-2, 2)
    end},
    {"Four kv heads recall at least 95% of 8 pairs", function(r)
      if #r:where {pairs = 8, variant = "4 kv heads"}:values "recall" == 0 then
        return nil, "no 4 kv heads with 8 pairs in this run"
      end
      return r:where {pairs = 8}:value("recall", {variant = "4 kv heads"}):above(95)
    end, source = "Arora et al. 2023, figure 2: attention solves the task", paper = "100%"},
    {"A window of a quarter of the tokens recalls less than four kv heads, 8 pairs", function(r)
      return against(r, 8, "4 kv heads"):of "window":below(0)
    end},
    {"FAVOR+ with 32 features recalls less than one kv head, 8 pairs", function(r)
      return against(r, 8, "1 kv head"):of "favor+ 32":below(0)
    end, source = "Arora et al. 2023: recall of linear attention is bound by its state"},
  },
}
