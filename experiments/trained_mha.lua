--- Models with multi-head attention, trained for experiments that change them afterwards
--- (convert_heads). Keeps the weights of each in model.safetensors.
local attune = require "attune"
local nn, train = require "attune.nn", require "attune.train"
local mha = require "shared.mha"
local study = train.study

return require "attune.experiment" {
  name = "trained_mha",
  about = "What is the loss of models with multi-head attention that other experiments convert?",
  fixed = {size = "study", path = "bible", lr = 8e-3, heads = 8, head_dim = 16},
  grid = {model = {1, 2, 3, 4, 5}},
  derived = {text = function(p) return study.fingerprint(p.path) end},
  order = {"model", "heads", "head_dim", "lr", "size", "path", "text"},
  quick = {size = {"quick"}, model = {1, 2}},
  rounds = 1,
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    bits_per_byte = study.metrics.bits_per_byte,
    curve = study.metrics.curve,
  },
  trial = function(p, t)
    local size = mha.sizes[p.size]
    local training, validation = study.text(p.path)
    if not training then return nil, validation end
    local model = nn.Decoder(mha.options(p, p.model))
    local result = study.train(t, {
      model = model, data = mha.loader(p, training, p.model, "shuffled"), lr = p.lr,
      seed = p.model, steps = size.tokens // (size.context * size.batch),
    })
    assert(attune.save(t:file "model.safetensors", model:state()))
    return {
      bits_per_byte = train.evaluate(model, mha.loader(p, validation, 1, "sequential"), {
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
