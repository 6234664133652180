-- From a text to samples: nanoGPT's CPU recipe (4 layers, 4 heads, 128 dims, context 64, batch 12,
-- 2,000 steps). Usage: train_characters.lua [PATH [STEPS]]; without a path, 10 steps on Lua code.
local attune = require "attune"
local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"

local path, steps = arg[1] or "lua/attune/data", tonumber(arg[2]) or arg[1] and 2000 or 10
local training, validation = assert(data.bytes(path)):split {validation = 0.1}
print(training)

local context = 64
local model = nn.Decoder {
  vocab = training.vocab, d_model = 128, layers = 4, heads = 4, context = context, seed = 1,
  position = "learned", norm = "layernorm", norm_bias = false, mlp = "gelu",
}
print(("%d parameters"):format(model:count()))

local function loader(corpus, order)
  return data.loader {corpus = corpus, tokens = context, batch = 12, seed = 1, order = order}
end
local start = attune.clock()
local result = assert(train.run {
  model = model, data = loader(training, "random"), steps = steps, clip = 1, seed = 1,
  optimizer = {lr = 1e-3, betas = {0.9, 0.99}, weight_decay = 0.1},
  schedule = {kind = "cosine", warmup = math.min(100, steps // 2), min = 1e-4},
  validate = {data = loader(validation), every = 250, batches = 100},
})
local last = result.validation[#result.validation]
print(("%d steps in %.0f s; validation loss %.3f nats, %.3f bits per byte"):format(
  steps, attune.clock() - start, last.loss, last.bits_per_byte))

local ids = train.generate(model, training:encode "\n", {
  tokens = arg[1] and 500 or 40, context = context, temperature = 0.8, top_k = 50, seed = 1,
})
print(training:decode(ids))
