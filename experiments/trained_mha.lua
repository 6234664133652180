--- Models with multi-head attention, trained for experiments that change them afterwards
--- (convert_heads). Keeps the weights of each in model.safetensors.
local attune = require "attune"
local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"
local study = train.study

local sizes = {
  tiny = {d_model = 16, layers = 2, context = 16, batch = 4, tokens = 512, rows = 4},
  quick = {d_model = 32, layers = 2, context = 64, batch = 8, tokens = 131072, rows = 80},
  study = {d_model = 96, layers = 4, context = 128, batch = 32, tokens = 4 << 20, rows = 3200},
}

return require "attune.experiment" {
  name = "trained_mha",
  about = "What is the loss of models with multi-head attention that other experiments convert?",
  fixed = {size = "study", path = "bible", lr = 2e-3, heads = 8, head_dim = 16},
  grid = {model = {1, 2, 3, 4, 5}},
  derived = {text = function(p) return study.fingerprint(p.path) end},
  order = {"model", "heads", "head_dim", "lr", "size", "path", "text"},
  quick = {size = {"quick"}, model = {1, 2}},
  rounds = 1,
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    bits_per_byte = {
      unit = "bit/B", better = "lower", about = "of validation text, windows of the trained length",
    },
    curve = {unit = "nat", better = "lower", about = "training loss, means of 100 equal parts"},
  },
  trial = function(p, t)
    local size = sizes[p.size]
    local training, validation = study.text(p.path)
    if not training then return nil, validation end
    local function loader(corpus, order)
      return data.loader {
        corpus = corpus, tokens = size.context, batch = size.batch, seed = p.model, order = order,
      }
    end
    local model = nn.Decoder {
      vocab = 256, d_model = size.d_model, layers = size.layers, heads = p.heads,
      head_dim = p.head_dim, position = "rope", seed = p.model,
    }
    local result = study.train(t, {
      model = model, data = loader(training, "shuffled"), lr = p.lr, seed = p.model,
      steps = size.tokens // (size.context * size.batch),
    })
    assert(attune.save(t:file "model.safetensors", model:state()))
    return {
      bits_per_byte = train.evaluate(model, loader(validation, "sequential"), {
        batches = size.rows // size.batch,
      }).bits_per_byte,
      curve = study.curve(result.losses, 100),
    }
  end,
  plots = {
    {kind = "line", name = "curves", y = "curve", along = "hundredths of the training",
      by = "model", title = "Training loss"},
  },
}
