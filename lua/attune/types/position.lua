---@meta
-- Types of positional encodings, for a Lua language server. Nothing loads this file.
-- Token positions count from 0.

---@alias attune.PositionName "none"|"rope"|"learned"|"sinusoidal"|"rope2d"|"xpos"|"alibi"|"t5"

---@class attune.RopeScaling
---@field type "linear"|"ntk"|"dynamic"|"yarn"|"longrope"|"llama3"|"proportional"
---@field factor? number at least 1; proportional: 1 where it is not given
---@field original? integer trained context length; all types but linear and ntk need it
---@field length? integer the length by which dynamic and longrope choose; by default the largest
--- position + 1 of each call
---@field beta_fast? number yarn: 32
---@field beta_slow? number yarn: 1
---@field attention_factor? number yarn, longrope: on cosines and sines; 0.1 ln factor + 1, or
--- sqrt(1 + ln factor / ln original)
---@field short_mscale? number longrope: in place of attention_factor up to original
---@field long_mscale? number longrope: beyond it
---@field mscale? number yarn: with mscale_all_dim, a ratio in place of that
---@field mscale_all_dim? number
---@field truncate? boolean yarn: true
---@field short? number[] longrope: dims / 2 each
---@field long? number[]
---@field low? number llama3: 1
---@field high? number llama3: 4

---@class attune.Position
---@field name attune.PositionName
---@field score? attune.ScoreFunction alibi and t5: for the option `score` of attention; always the
--- same function
---@field inv_freq? attune.Tensor of encodings that rotate: [dims / 2] f64
---@field factor number multiplies cosines and sines
---@field table? attune.Tensor learned: [max_positions, d_model]; t5: [buckets, heads]
---@field slopes? attune.Tensor alibi: [heads]
local Position = {}
--- Adds the row of each token's position.
---@param x attune.Tensor [batch, tokens, d_model]
---@param positions? integer[]|integer[][]|attune.Tensor [tokens] or [batch, tokens]; 0, 1, ..
---@return attune.Tensor x plus the positions' rows, or x itself
function Position:embed(x, positions) end
--- Rotates each token by its position.
---@param x attune.Tensor [batch, heads, tokens, head_dim]
---@param positions? integer[]|integer[][]|attune.Tensor rope2d: {{row, column}, ..}, which it needs
---@param which? "q"|"k" xpos needs it, as it rotates q and k differently
---@return attune.Tensor x rotated, or x itself
function Position:rotate(x, positions, which) end
--- What can be trained.
---@return table<string, attune.Tensor> trainable tensors: {weight = table} for learned and t5
function Position:parameters() end
--- t5: the bucket of a key; buckets count from 0.
---@param relative integer position of the key minus position of the query
---@return integer
function Position:bucket(relative) end
--- Gives the memory back now. Using the encoding afterwards raises an error.
function Position:close() end

---@class attune.RopeOptions
---@field base? number 10000 by default
---@field dims? integer the first dims rotate; head_dim by default
---@field pairing? "half"|"interleaved" half by default
---@field positions? integer[]|integer[][]|attune.Tensor [tokens] or [batch, tokens]; 0, 1, ..
---@field scaling? attune.RopeScaling
---@field inv_freq? number[] frequencies of the dims / 2 pairs, in place of base and scaling
---@field angles? "f64"|"f32"|"f16" precision of the angles; f64 by default

---@class attune
local attune = {}

--- A positional encoding. The options of each:
---   rope {head_dim, base, dims, pairing, scaling, inv_freq, angles}
---   learned {d_model, max_positions, seed | table}
---   sinusoidal {d_model, base, layout}
---   rope2d {head_dim, base, pairing}
---   xpos {head_dim, base, dims, scale_base, pairing, center}
---   alibi {heads, max_bias}
---   t5 {heads, buckets, max_distance, bidirectional, seed | table}
---   none accepts head_dim, d_model and heads, and ignores them
---@param name attune.PositionName
---@param options table
---@return attune.Position
function attune.position(name, options) end

--- Rotary embedding: Su et al. 2021 (arXiv 2104.09864), equation 34.
---@param x attune.Tensor [batch, heads, tokens, head_dim]
---@param options? attune.RopeOptions
---@return attune.Tensor x rotated, in x's shape and dtype
function attune.rope(x, options) end

return attune
