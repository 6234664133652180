--- Which scaling of RoPE reads texts longer than the model was trained on, untuned and tuned?
--
-- Takes the models of quality_positions that were trained with RoPE, and scales their frequencies
-- at test time: linear (Chen et al. 2023, arXiv 2306.15595), NTK-aware, dynamic and YaRN (Peng et
-- al. 2023, arXiv 2309.00071), for 2, 4 and 8 times the trained length. Each is tested as it is,
-- and after tuning for 3% of the tokens at the new length. `--set position=rope` trains the models
-- with RoPE alone, when quality_positions has not run before.
local attune = require "attune"
local data, nn, study = require "attune.data", require "attune.nn", require "attune.train".study
local positions = require "shared.positions"

local tuned_part = 0.03

local function scaling_of(p, size)
  if p.scaling == "none" then return nil end
  return {type = p.scaling, factor = p.factor, original = size.context}
end

-- Trains a model on for 3% of the tokens, in rows of the new length.
local function tune(t, p, model, training, size)
  local tokens = p.factor * size.context
  local batch = math.max(1, size.batch // p.factor)
  study.train(t, {
    model = model, lr = p.lr, seed = p.seed,
    steps = math.max(1, math.floor(tuned_part * size.tokens / (tokens * batch) + 0.5)),
    data = data.loader {corpus = training, tokens = tokens, batch = batch, seed = p.seed + 100},
  })
end

-- Scalings at one factor against another, as quality_positions' sliding windows test them.
local function against(r, factor, tuned, scaling, what)
  return r:where {factor = factor, tuned = tuned}:family("sliding", {scaling = scaling}, what)
end

return require "attune.experiment" {
  name = "quality_rope_scaling",
  about = "Which scaling of RoPE reads texts longer than the model was trained on, untuned and "
    .. "tuned?",
  uses = {"quality_positions"},
  fixed = {size = "study", path = "bible", lr = 2e-3, position = "rope"},
  grid = {
    scaling = {"none", "linear", "ntk", "dynamic", "yarn"},
    factor = {2, 4, 8},
    tuned = {false, true},
  },
  seeds = {1, 2, 3, 4, 5},
  derived = {text = function(p) return study.fingerprint(p.path) end},
  order = {"scaling", "factor", "tuned", "lr", "position", "size", "path", "text"},
  quick = {size = {"quick"}, seeds = {1, 2}, factor = {2, 8}},
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    sliding = {
      unit = "bit/B", better = "lower", about = "of validation text, windows of the new length "
        .. "that move by half the trained one",
    },
    separate = {
      unit = "bit/B", better = "lower", about = "the same, windows one after the other",
    },
    growth = {better = "lower", about = "sliding over the bits per byte at the trained length"},
  },
  trial = function(p, t)
    local size = positions.sizes[p.size]
    local training, validation = study.text(p.path)
    if not training then return nil, validation end
    local trained = t:use("quality_positions", {position = "rope", size = p.size, path = p.path})
    local options = positions.options(size, "rope", p.seed)
    options.rope = {scaling = scaling_of(p, size)}
    local model = nn.Decoder(options)
    model:load_state(assert(attune.load(trained:file("model.safetensors", p.seed))))
    if p.tuned then tune(t, p, model, training, size) end
    local function bits(tokens, stride)
      return study.bits_per_byte(model, validation, {
        tokens = tokens, stride = stride, targets = size.tested,
        from = positions.factors[#positions.factors] * size.context,
      })
    end
    local sliding = bits(p.factor * size.context, size.context // 2)
    return {
      sliding = sliding, separate = bits(p.factor * size.context),
      growth = sliding / trained.metrics.bits_per_byte,
    }
  end,
  plots = {
    {kind = "line", name = "untuned", x = "factor", y = "sliding", by = "scaling", log = "x",
      base = 2, where = {tuned = false}, title = "RoPE scaled at test time, untuned"},
    {kind = "line", name = "tuned", x = "factor", y = "sliding", by = "scaling", log = "x",
      base = 2, where = {tuned = true}, title = "RoPE scaled and tuned for 3% of the tokens"},
  },
  claims = {
    {"Untuned, YaRN at 8 times the length has no fewer bits than NTK", function(r)
      return against(r, 8, false, "ntk", "difference"):of "yarn":above(0)
    end, source = "a public comparison at 8x: perplexity YaRN 86, linear and NTK 35"},
    {"Untuned, linear at 8 times the length has more bits than YaRN", function(r)
      return against(r, 8, false, "yarn", "difference"):of "linear":above(0)
    end, source = "a public comparison at 8x: perplexity linear 117, YaRN 86"},
    {"Untuned, NTK at 2 times the length has fewer bits than no scaling", function(r)
      return against(r, 2, false, "none", "difference"):of "ntk":below(0)
    end, source = "Peng et al. 2023, section 3.1"},
    {"Tuned, YaRN at 8 times the length has fewer bits than linear", function(r)
      return against(r, 8, true, "linear", "difference"):of "yarn":below(0)
    end, source = "Peng et al. 2023, table 1"},
    {"Tuned, linear at 8 times the length is within 5% of the trained length", function(r)
      if #r:where {scaling = "linear", factor = 8, tuned = true}:values "growth" == 0 then
        return nil, "no tuned linear scaling in this run"
      end
      return r:value("growth", {scaling = "linear", factor = 8, tuned = true}):within(0.95, 1.05)
    end, source = "Chen et al. 2023, table 1: perplexity stays after tuning"},
    {"Tuned, scaling by YaRN has fewer bits at 8 times the length than none", function(r)
      return against(r, 8, true, "none", "difference"):of "yarn":below(0)
    end},
  },
}
