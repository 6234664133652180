--- The models of trained_mha, which convert_heads loads and trains on.
local data = require "attune.data"

local mha = {}

--- tokens: of the training; rows: of the validation text.
mha.sizes = {
  tiny = {d_model = 16, layers = 2, context = 16, batch = 4, tokens = 512, rows = 4},
  quick = {d_model = 32, layers = 2, context = 64, batch = 8, tokens = 131072, rows = 80},
  study = {d_model = 96, layers = 4, context = 128, batch = 8, tokens = 2 << 20, rows = 3200},
}

--- The options of a model.
---@param p {size: string, heads: integer, head_dim: integer, kv_heads: integer?}
---@param seed integer
---@return table
function mha.options(p, seed)
  local size = mha.sizes[p.size]
  return {
    vocab = 256, d_model = size.d_model, layers = size.layers, heads = p.heads,
    kv_heads = p.kv_heads, head_dim = p.head_dim, position = "rope", seed = seed,
  }
end

--- Batches of a text; order as of data.loader.
function mha.loader(p, corpus, seed, order)
  local size = mha.sizes[p.size]
  return data.loader {
    corpus = corpus, tokens = size.context, batch = size.batch, seed = seed, order = order,
  }
end

return mha
