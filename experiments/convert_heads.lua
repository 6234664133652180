--- Can a trained multi-head model be made a GQA or MQA model, and what training does that take?
--
-- Takes the models of trained_mha and gives them 4, 2 or 1 kv heads: each new head is the mean of
-- the old ones of its group, the first of them, or random (Ainslie et al. 2023, arXiv 2305.13245,
-- section 2.1 and figure 4). Then they are trained on for 0, 5 or 10% of the tokens. The model that
-- keeps all its heads is trained on as long, as a reference.
local attune = require "attune"
local nn, train = require "attune.nn", require "attune.train"
local mha = require "shared.mha"
local study = train.study

-- Makes [kv_heads * head_dim, d_model] of [heads * head_dim, d_model].
local choices = {
  mean = function(weight, heads, kv_heads)
    local rows, d_model = weight.shape[1], weight.shape[2]
    return weight:view(kv_heads, heads // kv_heads, rows // heads, d_model):mean(2)
      :contiguous():view(rows // heads * kv_heads, d_model)
  end,
  first = function(weight, heads, kv_heads)
    local rows, d_model = weight.shape[1], weight.shape[2]
    return weight:view(kv_heads, heads // kv_heads, rows // heads, d_model):slice(2, 1, 1)
      :contiguous():view(rows // heads * kv_heads, d_model)
  end,
  random = function() return nil end,
}

-- The weights of a trained model with fewer kv heads in a new model, whose own initial values are
-- the random choice.
local function convert(state, model, p)
  local new = model:state()
  for name, weight in pairs(state) do
    if name:find "%.attention%.[kv]%.weight$" then
      weight = choices[p.choice](weight, p.heads, p.kv_heads) or new[name]
    end
    new[name] = weight
  end
  model:load_state(new)
end

-- Converted models against those that keep all heads, both trained on for the same part.
local function against_mha(r, part)
  return r:where {part = part, choice = "mean"}:family("bits_per_byte", {kv_heads = 8}, "ratio")
end

-- Choices against the mean, for one number of kv heads.
local function against_mean(r, part, kv_heads)
  return r:where {part = part, kv_heads = kv_heads}
    :family("bits_per_byte", {choice = "mean"}, "difference")
end

return require "attune.experiment" {
  name = "convert_heads",
  about = "Can a trained multi-head model be made a GQA or MQA model, and what training does that "
    .. "take?",
  uses = {"trained_mha"},
  fixed = {size = "study", path = "bible", lr = 4e-3, heads = 8, head_dim = 16},
  grid = {
    kv_heads = {8, 4, 2, 1},
    choice = {"mean", "first", "random"},
    part = {0, 0.05, 0.1},
  },
  -- All choices of 8 heads out of 8 but the random one are the same.
  where = function(p) return p.kv_heads < p.heads or p.choice == "mean" end,
  seeds = {1, 2, 3, 4, 5},
  derived = {text = function(p) return study.fingerprint(p.path) end},
  order = {"kv_heads", "choice", "part", "heads", "head_dim", "lr", "size", "path", "text"},
  quick = {size = {"quick"}, seeds = {1, 2}, kv_heads = {8, 1}},
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    bits_per_byte = study.metrics.bits_per_byte,
    lost = {unit = "bit/B", better = "lower", about = "above the model that was converted"},
  },
  trial = function(p, t)
    local size = mha.sizes[p.size]
    local training, validation = study.text(p.path)
    if not training then return nil, validation end
    local trained = t:use("trained_mha", {model = p.seed, size = p.size, path = p.path})
    local model = nn.Decoder(mha.options(p, p.seed + 100))
    convert(assert(attune.load(trained:file "model.safetensors")), model, p)
    local steps = math.floor(p.part * size.tokens / (size.context * size.batch) + 0.5)
    if steps > 0 then
      -- The trained model has seen the text in another order.
      study.train(t, {
        model = model, data = mha.loader(p, training, p.seed + 100, "shuffled"), lr = p.lr,
        seed = p.seed, steps = steps,
      })
    end
    local bits = train.evaluate(model, mha.loader(p, validation, 1, "sequential"), {
      batches = size.rows // size.batch,
    }).bits_per_byte
    return {bits_per_byte = bits, lost = bits - trained.metrics.bits_per_byte}
  end,
  plots = {
    {kind = "line", name = "mqa", x = "part", y = "bits_per_byte", by = "choice",
      where = {kv_heads = 1}, title = "MQA made of MHA, by the part of the training added"},
    {kind = "line", name = "heads", x = "part", y = "bits_per_byte", by = "kv_heads",
      where = {choice = "mean"}, title = "Mean of the heads of each group"},
  },
  claims = {
    {"Trained on for 10%, MQA by means is within 2% of MHA in bits per byte", function(r)
      return against_mha(r, 0.1):of(1):within(0.98, 1.02)
    end, source = "Ainslie et al. 2023, average quality 46.6 / 47.2", paper = 0.987},
    {"Trained on for 10%, GQA with 4 kv heads by means is within 1% of MHA", function(r)
      return against_mha(r, 0.1):of(4):within(0.99, 1.01)
    end, source = "Ainslie et al. 2023, GQA-8-XXL, average quality 47.1 / 47.2", paper = 0.998},
    {"MQA by the first head is worse than by means after 5%", function(r)
      return against_mean(r, 0.05, 1):of "first":above(0)
    end, source = "Ainslie et al. 2023, figure 4: mean, then first, then random"},
    {"MQA by random heads is worse than by means after 5%", function(r)
      return against_mean(r, 0.05, 1):of "random":above(0)
    end, source = "Ainslie et al. 2023, figure 4: mean, then first, then random"},
    {"Without more training MQA by means loses more than 10%", function(r)
      return against_mha(r, 0):of(1):above(1.1)
    end, source = "Ainslie et al. 2023, figure 5: MQA needs training after conversion"},
    {"5% of the training recover MQA by means to within 5% of MHA", function(r)
      return against_mha(r, 0.05):of(1):within(0.95, 1.05)
    end, source = "Ainslie et al. 2023, figure 5: 5% suffice"},
  },
}
