--- How much quality does linear attention lose, and do more features make up for it?
--
-- Trains byte-level models with softmax attention and with FAVOR+ of 32, 64 and 128 features
-- (Choromanski et al. 2021, arXiv 2009.14794), each with RoPE and without an encoding. Everything
-- else is equal, the initial values too; the projection of the features is no parameter. RoPE
-- rotates the features (Su et al. 2021, arXiv 2104.09864, section 3.3).
local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"
local study = train.study

local sizes = {
  tiny = {d_model = 16, layers = 2, heads = 2, context = 16, batch = 4, tokens = 256, rows = 4},
  quick = {d_model = 32, layers = 2, heads = 4, context = 64, batch = 8, tokens = 65536, rows = 80},
  study = {
    d_model = 96, layers = 4, heads = 6, context = 128, batch = 8, tokens = 1 << 20, rows = 3200,
  },
}
local features = {["softmax"] = 0, ["favor+ 32"] = 32, ["favor+ 64"] = 64, ["favor+ 128"] = 128}

local function against_softmax(r, position, what)
  return r:where {position = position}:family("loss", {attention = "softmax"}, what)
end

return require "attune.experiment" {
  name = "quality_linear",
  about = "How much quality does linear attention lose, and do more features make up for it?",
  fixed = {size = "study", path = "bible", lr = 8e-3},
  grid = {
    attention = {"softmax", "favor+ 32", "favor+ 64", "favor+ 128"},
    position = {"rope", "none"},
  },
  seeds = {1, 2, 3},
  derived = {text = function(p) return study.fingerprint(p.path) end},
  order = {"attention", "position", "lr", "size", "path", "text"},
  quick = {size = {"quick"}, seeds = {1, 2}},
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    bits_per_byte = study.metrics.bits_per_byte,
    loss = study.metrics.loss,
    curve = study.metrics.curve,
  },
  trial = function(p, t)
    local size, count = sizes[p.size], features[p.attention]
    local training, validation = study.text(p.path)
    if not training then return nil, validation end
    local model = nn.Decoder {
      vocab = 256, d_model = size.d_model, layers = size.layers, heads = size.heads,
      position = p.position, seed = p.seed,
      linear = count > 0 and {features = "favor+", count = count} or nil,
    }
    local function loader(corpus, order)
      return data.loader {
        corpus = corpus, tokens = size.context, batch = size.batch, seed = p.seed, order = order,
      }
    end
    local result = study.train(t, {
      model = model, data = loader(training, "shuffled"), lr = p.lr, seed = p.seed,
      steps = size.tokens // (size.context * size.batch),
    })
    local found = train.evaluate(model, loader(validation, "sequential"), {
      batches = size.rows // size.batch,
    })
    return {
      bits_per_byte = found.bits_per_byte, loss = found.loss,
      curve = study.curve(result.losses, 100),
    }
  end,
  plots = {
    {kind = "bars", name = "quality", x = "attention", y = "bits_per_byte", by = "position",
      title = "Bits per byte of softmax and linear attention"},
    {kind = "line", name = "curves", y = "curve", along = "hundredths of the training",
      by = "attention", where = {position = "rope"},
      title = "Training loss with RoPE, with 95% intervals over seeds"},
  },
  claims = {
    {"FAVOR+ with 128 features has a higher loss than softmax, with RoPE", function(r)
      return against_softmax(r, "rope", "difference"):of "favor+ 128":above(0)
    end, source = "EleutherAI 2021: the gap to softmax stays, no figure"},
    {"FAVOR+ with 128 features has a lower loss than with 32, with RoPE", function(r)
      return r:where {position = "rope"}:family("loss", {attention = "favor+ 32"}, "difference")
        :of "favor+ 128":below(0)
    end, source = "Choromanski et al. 2021: the error falls with the features"},
    {"RoPE lowers the loss of FAVOR+ with 64 features", function(r)
      return r:where {attention = "favor+ 64"}:family("loss", {position = "none"}, "difference")
        :of "rope":below(0)
    end, source = "EleutherAI 2021: Performer with rotary has a lower loss, no figure"},
    {"RoPE lowers the loss of softmax attention", function(r)
      return r:where {attention = "softmax"}:family("loss", {position = "none"}, "difference")
        :of "rope":below(0)
    end},
  },
}
