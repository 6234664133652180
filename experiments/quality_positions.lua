--- What is a positional encoding worth, at the trained length and beyond it?
--
-- Trains byte-level models that differ in the encoding alone: none, learned, sinusoidal, RoPE,
-- xPos, ALiBi and T5's bias, at equal parameters (d_ff makes up for tables). Each is then tested on
-- the same validation text with 1, 2, 4 and 8 times the trained length, in two ways (Press et al.
-- 2022, arXiv 2108.12409, section 5): "separate" windows, one after the other, whose first tokens
-- have hardly any text before them; and "sliding" windows, which move by half the trained length
-- and count the targets of their last part only. A learned table has no positions beyond the
-- trained length, so that it is tested there alone.
--
-- The weights are kept for quality_rope_scaling, which scales RoPE at test time.
local attune = require "attune"
local data, nn, study = require "attune.data", require "attune.nn", require "attune.train".study
local positions = require "shared.positions"

local sizes, factors = positions.sizes, positions.factors

-- Bits per byte of the same targets, in windows of factor times the trained length.
local function test(model, validation, size, factor, stride)
  return study.bits_per_byte(model, validation, {
    tokens = factor * size.context, stride = stride, from = factors[#factors] * size.context,
    targets = size.tested,
  })
end

local function growth(metric)
  return function(r, position) return r:value(metric, {position = position}) end
end
local growth_sliding, growth_separate = growth "growth_sliding", growth "growth_separate"

local function has(r, position)
  for _, point in ipairs(r.points) do
    if point.parameters.position == position and point.metrics.loss then return true end
  end
  return false
end

-- A claim about one encoding, undecided where the run leaves it out.
local function about(position, fn)
  return function(r)
    if not has(r, position) then return nil, "no " .. position .. " in this run" end
    return fn(r, position)
  end
end

return require "attune.experiment" {
  name = "quality_positions",
  about = "What is a positional encoding worth, at the trained length and beyond it?",
  fixed = {size = "study", path = "bible", lr = 8e-3},
  grid = {position = {"none", "learned", "sinusoidal", "rope", "xpos", "alibi", "t5"}},
  seeds = {1, 2, 3, 4, 5},
  derived = {text = function(p) return study.fingerprint(p.path) end},
  order = {"position", "lr", "size", "path", "text"},
  quick = {size = {"quick"}, seeds = {1, 2}},
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    bits_per_byte = {unit = "bit/B", better = "lower", about = "at the trained length, separate"},
    loss = study.metrics.loss,
    length = {unit = "1", about = "tokens of a window"},
    separate = {unit = "bit/B", better = "lower", about = "by length, windows one after the other"},
    sliding = {
      unit = "bit/B", better = "lower", about = "by length, windows that move by half the "
        .. "trained length",
    },
    growth_separate = {
      better = "lower", about = "bits per byte at 8 times the trained length over those at 1",
    },
    growth_sliding = {better = "lower", about = "the same for sliding windows"},
    parameters = {unit = "1", about = "of the model"},
    curve = study.metrics.curve,
  },
  trial = function(p, t)
    local size = sizes[p.size]
    local training, validation = study.text(p.path)
    if not training then return nil, validation end
    local model = nn.Decoder(positions.options(size, p.position, p.seed))
    local result = study.train(t, {
      model = model, lr = p.lr, seed = p.seed, steps = size.tokens // (size.context * size.batch),
      data = data.loader {
        corpus = training, tokens = size.context, batch = size.batch, seed = p.seed,
      },
    })
    local found = {length = {}, separate = {}, sliding = {}}
    for k, factor in ipairs(p.position == "learned" and {1} or factors) do
      found.length[k] = factor * size.context
      found.separate[k] = test(model, validation, size, factor)
      found.sliding[k] = test(model, validation, size, factor, size.context // 2)
    end
    found.bits_per_byte, found.loss = found.separate[1], found.separate[1] * math.log(2)
    if p.position ~= "learned" then
      found.growth_separate = found.separate[#factors] / found.separate[1]
      found.growth_sliding = found.sliding[#factors] / found.sliding[1]
    end
    found.parameters, found.curve = model:count(), study.curve(result.losses, 100)
    assert(attune.save(t:file "model.safetensors", model:state()))
    return found
  end,
  plots = {
    {kind = "bars", name = "trained_length", x = "position", y = "bits_per_byte",
      title = "Bits per byte at the trained length"},
    {kind = "line", name = "sliding", x = "length", y = "sliding", by = "position", log = "x",
      base = 2, title = "Beyond the trained length, sliding windows"},
    {kind = "line", name = "separate", x = "length", y = "separate", by = "position", log = "x",
      base = 2, title = "Beyond the trained length, separate windows"},
    {kind = "line", name = "curves", y = "curve", along = "hundredths of the training",
      by = "position", title = "Training loss, with 95% intervals over seeds"},
  },
  claims = {
    {"RoPE has fewer bits per byte than learned positions", function(r)
      return r:family("loss", {position = "learned"}, "ratio"):of "rope":below(1)
    end, source = "EleutherAI 2021, OpenWebText2, loss 2.759 / 2.809", paper = 0.982},
    {"T5's bias is within 1% of learned positions", function(r)
      return r:family("loss", {position = "learned"}, "ratio"):of "t5":within(0.99, 1.01)
    end, source = "EleutherAI 2021, OpenWebText2, loss 2.801 / 2.809", paper = 0.997},
    {"A model without an encoding differs from one with RoPE", function(r)
      return r:family("loss", {position = "rope"}, "difference"):of "none":differs()
    end},
    {"xPos is within 1% of RoPE at the trained length", function(r)
      return r:family("loss", {position = "rope"}, "ratio"):of "xpos":within(0.99, 1.01)
    end},
    {"ALiBi at 8 times the trained length is at most 2% worse, sliding", about("alibi",
      function(r, position) return growth_sliding(r, position):below(1.02) end),
      source = "Press et al. 2022: no loss beyond the trained length"},
    {"ALiBi gains from longer separate windows", about("alibi",
      function(r, position) return growth_separate(r, position):below(1) end),
      source = "Press et al. 2022, section 5: fewer tokens with little text before them"},
    {"RoPE unscaled loses more than 10% at 8 times the trained length, sliding", about("rope",
      function(r, position) return growth_sliding(r, position):above(1.1) end),
      source = "Press et al. 2022, figure 1"},
    {"Sinusoidal positions lose more than 10% at 8 times the trained length, sliding",
      about("sinusoidal", function(r, position)
        return growth_sliding(r, position):above(1.1)
      end), source = "Press et al. 2022, figure 1"},
    {"T5's bias loses less than RoPE at 8 times the trained length", function(r)
      return r:family("growth_sliding", {position = "rope"}, "ratio"):of "t5":below(1)
    end, source = "Press et al. 2022, figure 1"},
  },
}
