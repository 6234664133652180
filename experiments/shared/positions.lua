--- The models of quality_positions, which quality_rope_scaling loads again.
local nn = require "attune.nn"

local positions = {}

--- tokens: of the training; tested: targets of the validation text.
positions.sizes = {
  tiny = {d_model = 16, layers = 2, heads = 2, context = 16, batch = 4, tokens = 256, tested = 256},
  quick = {
    d_model = 32, layers = 2, heads = 4, context = 64, batch = 8, tokens = 131072, tested = 4096,
  },
  study = {
    d_model = 96, layers = 4, heads = 6, context = 128, batch = 32, tokens = 2 << 20,
    tested = 1 << 16,
  },
}

--- Multiples of the trained length.
positions.factors = {1, 2, 4, 8}

--- The options of a model, d_ff such that the parameters are those of RoPE.
---@param size table of sizes
---@param position string
---@param seed integer
---@return table
function positions.options(size, position, seed)
  return nn.match {
    reference = {
      vocab = 256, d_model = size.d_model, layers = size.layers, heads = size.heads,
      d_ff = 4 * size.d_model, context = size.context, position = "rope", seed = seed,
    },
    change = {
      position = position,
      -- Sines are of size 1. They are made as small as a learned table is at first.
      sinusoidal = {scale = 0.02 * math.sqrt(2)},
    },
  }
end

return positions
