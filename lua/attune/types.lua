---@meta attune
-- Types of the public names, for a Lua language server. Nothing loads this file. Axes, indices and places count from 1, negative ones from the end;
-- token positions count from 0. Layouts: x [batch, tokens, d_model]; q, k, v, o [batch, heads, tokens, head_dim]. Wrong arguments raise.

---@alias attune.dtype "f32"|"f64"|"bf16"|"f16"|"i8"|"i32"|"i64"
---@alias attune.operand attune.Tensor|number

--- A view of numbers in memory. Views (t[i], view, transpose, slice, expand) share memory.
---@class attune.Tensor
---@field shape integer[]
---@field dtype attune.dtype
---@field nbytes integer count times element size
---@field [integer] attune.Tensor the i-th along the first axis
---@operator add(attune.operand): attune.Tensor
---@operator sub(attune.operand): attune.Tensor
---@operator mul(attune.operand): attune.Tensor
---@operator div(attune.operand): attune.Tensor
---@operator pow(attune.operand): attune.Tensor
---@operator unm: attune.Tensor
---@operator len: integer
local Tensor = {}
---@return table|number nested as the shape is
function Tensor:tolist() end
---@return number the only element
function Tensor:item() end
--- Rounds to nearest even; to integers it rounds and saturates.
---@param dtype attune.dtype
---@return attune.Tensor
function Tensor:to(dtype) end
---@return attune.Tensor itself where it is contiguous
function Tensor:contiguous() end
---@param ... integer|integer[] one may be -1
---@return attune.Tensor
function Tensor:view(...) end
---@param a integer
---@param b integer
---@return attune.Tensor
function Tensor:transpose(a, b) end
---@param axis integer
---@param first integer
---@param last integer included
---@return attune.Tensor
function Tensor:slice(axis, first, last) end
---@param ... integer|integer[] axes of 1 repeat
---@return attune.Tensor
function Tensor:expand(...) end
---@param axis? integer without it over all, giving shape {}
---@return attune.Tensor
function Tensor:sum(axis) end
---@param axis? integer
---@return attune.Tensor
function Tensor:mean(axis) end
---@param axis? integer
---@return attune.Tensor NaN where one is
function Tensor:max(axis) end
---@return attune.Tensor
function Tensor:exp() end
---@return attune.Tensor
function Tensor:log() end
---@return attune.Tensor
function Tensor:sqrt() end
---@return attune.Tensor
function Tensor:tanh() end
---@return attune.Tensor
function Tensor:sigmoid() end
---@return attune.Tensor x times the normal distribution's probability of x (erf)
function Tensor:gelu() end
---@return attune.Tensor x times sigmoid(x)
function Tensor:silu() end
---@return attune.Tensor
function Tensor:abs() end
---@param axis integer
---@return attune.Tensor a row of -inf gives zeros
function Tensor:softmax(axis) end
--- Gives the memory back now. Idempotent; using the tensor afterwards raises.
function Tensor:close() end

---@class attune.AttentionOptions
---@field causal? boolean the last query is the last key's token; a query sees no later one
---@field window? integer a query sees itself and window - 1 tokens before it (not causal: also after)
---@field scale? number 1 / sqrt(head_dim)
---@field softcap? number s becomes softcap * tanh(s / softcap): Gemma 2
---@field lengths? integer[]|integer[][] tokens of each packed document, for all batch rows or one list a row
---@field sinks? attune.Tensor [heads] f32: a logit a head that joins the softmax's denominator
---@field rotate? attune.Position q and k are turned on the way in, as its rotate does
---@field positions? integer[]|integer[][]|attune.Tensor with rotate: of the keys, [keys] or [batch, keys]; the queries are the last; 0, 1, ..
---@field engine? "reference"|"blis"|"tiled"|"decode" that one or an error

---@class attune.AttendOptions
---@field window? integer at most the cache's own
---@field scale? number
---@field softcap? number
---@field sinks? attune.Tensor
---@field rotate? attune.Position turns q on the way in, by the queries' places
---@field engine? "tiled"|"decode"

---@class attune.Cache
---@field length integer tokens appended to the longest row
---@field lengths integer[] of each batch row
---@field nbytes integer what K and V take
---@field dtype attune.dtype
---@field capacity integer tokens
---@field batch integer
---@field kv_heads integer
---@field head_dim integer
---@field window? integer
local Cache = {}
--- Full, it raises and stays as it was.
---@param k attune.Tensor [batch, kv_heads, tokens, head_dim]
---@param v attune.Tensor
---@param options? {counts?: integer[], rotate?: attune.Position} counts: tokens that belong to each batch row; rotate: k is turned on the way in
---@return attune.Cache self
function Cache:append(k, v, options) end
--- The queries are the last tokens appended.
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param options? attune.AttendOptions
---@return attune.Tensor o
---@return attune.Tensor lse
function Cache:attend(q, options) end
---@param n integer tokens to keep
---@return attune.Cache self
function Cache:truncate(n) end
---@return attune.Cache self
function Cache:reset() end
function Cache:close() end

---@alias attune.PositionName "none"|"rope"|"learned"|"sinusoidal"|"rope2d"|"xpos"|"alibi"|"t5"

---@class attune.RopeScaling
---@field type "linear"|"ntk"|"dynamic"|"yarn"|"longrope"|"llama3"
---@field factor number at least 1
---@field original? integer tokens that the model was trained at: all but linear and ntk need it
---@field length? integer what dynamic and longrope choose by; else the largest position + 1 of each call
---@field beta_fast? number yarn: 32
---@field beta_slow? number yarn: 1
---@field attention_factor? number yarn: on cosines and sines; 0.1 ln factor + 1
---@field mscale? number yarn: with mscale_all_dim, a ratio in place of that
---@field mscale_all_dim? number
---@field truncate? boolean yarn: true
---@field short? number[] longrope: dims / 2 each
---@field long? number[]
---@field low? number llama3: 1
---@field high? number llama3: 4

---@class attune.Position
---@field name attune.PositionName
---@field score? fun(s: any, at: any): any alibi and t5: for attention's `score`, the same function each time
---@field inv_freq? attune.Tensor of what rotates: [dims / 2] f64
---@field factor number on cosines and sines
---@field table? attune.Tensor learned: [max_positions, d_model]; t5: [buckets, heads]
---@field slopes? attune.Tensor alibi: [heads]
local Position = {}
---@param x attune.Tensor [batch, tokens, d_model]
---@param positions? integer[]|integer[][]|attune.Tensor [tokens] or [batch, tokens]; 0, 1, ..
---@return attune.Tensor x plus the positions' rows, or x itself
function Position:embed(x, positions) end
---@param x attune.Tensor [batch, heads, tokens, head_dim]
---@param positions? integer[]|integer[][]|attune.Tensor rope2d: {{row, column}, ..}, which it needs
---@param which? "q"|"k" xpos tells them apart and needs it
---@return attune.Tensor turned, or x itself
function Position:rotate(x, positions, which) end
---@return table<string, attune.Tensor> what trains: {weight = table} of learned and t5
function Position:parameters() end
--- t5: the bucket of a key, from 0.
---@param relative integer the key's position less the query's
---@return integer
function Position:bucket(relative) end
function Position:close() end

---@class attune.LinearOptions
---@field causal? boolean the last query is the last key's token; a query sees no later token
---@field features? "favor+"|"trig"|"relu"|"elu" favor+ by default
---@field projection? attune.Tensor [features, head_dim]; elu needs none. trig makes two features of each row
---@field rotate? attune.Position turns features in the numerator only; its head_dim is the number of features
---@field epsilon? number added to each feature, 0

---@class attune.LinearState
---@field length integer tokens appended
---@field nbytes integer what it keeps, however many tokens
---@field batch integer
---@field kv_heads integer
---@field head_dim integer
---@field v_head_dim integer
---@field features "favor+"|"trig"|"relu"|"elu"
local LinearState = {}
---@param k attune.Tensor [batch, kv_heads, tokens, head_dim]
---@param v attune.Tensor [batch, kv_heads, tokens, v_head_dim]
---@return attune.LinearState self
function LinearState:append(k, v) end
--- The query is the last token appended.
---@param q attune.Tensor [batch, heads, 1, head_dim]
---@return attune.Tensor o [batch, heads, 1, v_head_dim] in q's dtype
function LinearState:attend(q) end
---@return attune.LinearState self
function LinearState:reset() end
function LinearState:close() end

---@class attune
---@field version string
---@field build string compiler and flags
local attune = {}

---@param data table numbers, nested as the shape is
---@param options? {shape?: integer[], dtype?: attune.dtype}
---@return attune.Tensor
function attune.tensor(data, options) end
---@param shape integer[]
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.zeros(shape, options) end
---@param shape integer[]
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.ones(shape, options) end
---@param shape integer[]
---@param value number
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.full(shape, value, options) end
--- arange(n): 0 .. n - 1. arange(first, last, step): last included.
---@param first integer|number
---@param last? number
---@param step? number
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.arange(first, last, step, options) end
---@param shape integer[]
---@param options? {seed?: integer, dtype?: attune.dtype, mean?: number, std?: number}
---@return attune.Tensor
function attune.randn(shape, options) end
---@param shape integer[]
---@param options? {seed?: integer, dtype?: attune.dtype, low?: number, high?: number}
---@return attune.Tensor
function attune.uniform(shape, options) end
--- a [.., m, k], b [.., k, n]: leading axes broadcast; any strides.
---@param a attune.Tensor
---@param b attune.Tensor
---@return attune.Tensor
function attune.matmul(a, b) end
--- softmax(mask(softcap(scale q k^T))) v.
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param k attune.Tensor [batch, kv_heads, keys, head_dim]; kv_heads divides heads
---@param v attune.Tensor [batch, kv_heads, keys, v_head_dim]
---@param options? attune.AttentionOptions
---@return attune.Tensor o [batch, heads, queries, v_head_dim] in q's dtype; zeros for a row that sees nothing
---@return attune.Tensor lse [batch, heads, queries] log of the denominator; -inf for a row that sees nothing
function attune.attention(q, k, v, options) end
--- Gradients for d_o, from o and lse as attention gave them with the same options: Dao et al. 2022 (arXiv 2205.14135), algorithm 4.
---@param d_o attune.Tensor [batch, heads, queries, v_head_dim]
---@param q attune.Tensor
---@param k attune.Tensor
---@param v attune.Tensor
---@param o attune.Tensor
---@param lse attune.Tensor
---@param options? attune.AttentionOptions engine: tiled (the default) or reference
---@return attune.Tensor dq in q's dtype
---@return attune.Tensor dk
---@return attune.Tensor dv
---@return table<attune.Tensor, attune.Tensor> dtables of sinks, keyed by the tensor
function attune.attention_backward(d_o, q, k, v, o, lse, options) end
---@param q attune.Tensor
---@param k attune.Tensor
---@param options? attune.AttentionOptions
---@return attune.Tensor [batch, heads, queries, keys]
function attune.attention_weights(q, k, options) end
--- Attention over the union of two disjoint sets of keys.
---@return attune.Tensor o
---@return attune.Tensor lse
function attune.merge(o1, lse1, o2, lse2) end
---@param options {batch?: integer, kv_heads: integer, head_dim: integer, v_head_dim?: integer, capacity?: integer, window?: integer, dtype?: "f32"|"bf16"|"f16"|"i8"}
---@return attune.Cache
function attune.cache(options) end
--- Attention through features: Choromanski et al. 2021 (arXiv 2009.14794), Katharopoulos et al. 2020 (arXiv 2006.16236). Not causal unless asked.
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param k attune.Tensor [batch, kv_heads, keys, head_dim]; kv_heads divides heads
---@param v attune.Tensor [batch, kv_heads, keys, v_head_dim]
---@param options attune.LinearOptions
---@return attune.Tensor o [batch, heads, queries, v_head_dim] in q's dtype
function attune.linear_attention(q, k, v, options) end
---@param d_o attune.Tensor [batch, heads, queries, v_head_dim]
---@param q attune.Tensor
---@param k attune.Tensor
---@param v attune.Tensor
---@param options attune.LinearOptions
---@return attune.Tensor dq
---@return attune.Tensor dk
---@return attune.Tensor dv
function attune.linear_attention_backward(d_o, q, k, v, options) end
--- Blocks of orthogonal rows with the lengths of normal vectors.
---@param options {head_dim: integer, features: integer, seed?: integer}
---@return attune.Tensor [features, head_dim] f32
function attune.favor_projection(options) end
--- Positive random features, times features^(-1/2); minus each query's greatest exponent, or the greatest of a head's keys.
---@param x attune.Tensor [batch, heads, tokens, head_dim]
---@param options {projection: attune.Tensor, query?: boolean, epsilon?: number}
---@return attune.Tensor [batch, heads, tokens, features] in x's dtype
function attune.favor_features(x, options) end
---@param options {batch?: integer, kv_heads: integer, head_dim: integer, v_head_dim?: integer, projection?: attune.Tensor, features?: string, rotate?: attune.Position, epsilon?: number}
---@return attune.LinearState
function attune.linear_state(options) end
--- rope {head_dim, base, dims, pairing, scaling, angles}; learned {d_model, max_positions, seed | table}; sinusoidal {d_model, base, layout};
--- rope2d {head_dim, base, pairing}; xpos {head_dim, base, dims, scale_base, pairing, center}; alibi {heads, max_bias};
--- t5 {heads, buckets, max_distance, bidirectional, seed | table}; none takes head_dim, d_model and heads and heeds none.
---@param name attune.PositionName
---@param options table
---@return attune.Position
function attune.position(name, options) end
--- Rotary embedding: Su et al. 2021 (arXiv 2104.09864), equation 34.
---@param x attune.Tensor [batch, heads, tokens, head_dim]
---@param options? {base?: number, dims?: integer, pairing?: "half"|"interleaved", positions?: integer[]|attune.Tensor, scaling?: attune.RopeScaling, angles?: "f64"|"f32"|"f16"}
---@return attune.Tensor
function attune.rope(x, options) end
--- safetensors. nil, message, code when the file cannot be read or is malformed.
---@param path string
---@return table<string, attune.Tensor>? tensors
---@return table<string, string>|string metadata
function attune.load(path) end
---@param path string
---@param tensors table<string, attune.Tensor>
---@param metadata? table<string, string>
---@return true?
---@return string? message
function attune.save(path, tensors, metadata) end
---@return number seconds, monotonic
function attune.clock() end
--- Where random draws without a seed start.
---@param n integer
function attune.set_seed(n) end
--- Philox 4x32-10 (Salmon et al. 2011).
---@param counter integer[] four words
---@param key integer[] two words
---@return integer[] four words
function attune.philox(counter, key) end
--- Sets how many threads work, or asks. Results have the same bits for any number.
---@param n? integer
---@return integer
function attune.threads(n) end
---@param options? {limit?: integer, reset_peak?: boolean} limit 0: none
---@return {bytes: integer, peak: integer, limit: integer}
function attune.memory(options) end
---@return {cpu: string, cores: integer, isa: string, isas: string[], features: string, l1: integer, l2: integer, l3: integer, memory: integer}
function attune.machine() end
--- Ceilings, measured now by all threads: FLOP/s of f32 multiply-adds, B/s of reading, FLOP/s of BLIS's sgemm.
attune.measure = {
  ---@param seconds? number
  ---@return number
  peak = function(seconds) end,
  ---@param seconds? number
  ---@param bytes? integer
  ---@return number
  bandwidth = function(seconds, bytes) end,
  --- The same over a tensor that is there already, so that readings can stand close to what they are compared with.
  ---@param seconds number
  ---@param t attune.Tensor contiguous
  ---@return number
  read = function(seconds, t) end,
  ---@param seconds? number
  ---@param n? integer
  ---@return number
  sgemm = function(seconds, n) end,
}

return attune
