---@meta
-- Types of models and what they cost, for a Lua language server. Nothing loads this file.

---@alias attune.model.CacheDtype "f32"|"bf16"|"f16"|"i8"

--- The fields of a configuration; presets.lua describes those that are rare.
---@class attune.model.Fields
---@field name? string
---@field layers integer
---@field d_model integer
---@field heads integer
---@field head_dim integer
---@field kv_heads integer
---@field d_ff integer
---@field vocab integer
---@field mlp "relu"|"gelu"|"gelu_tanh"|"silu"|"swiglu"|"geglu"|"reglu"|"glu"
---@field norm "layernorm"|"rmsnorm"
---@field position attune.PositionName
---@field block? "serial"|"parallel"
---@field context? integer
---@field window? integer|false
---@field tied? boolean
---@field bias? boolean

---@class attune.model.Config: attune.model.Fields
---@field parameters integer
---@field active_parameters integer that one token uses
local Config = {}
--- Parameters and FLOPs of one decoded token, by part.
---@param given? {context?: integer, source?: integer}
---@return attune.model.Part[]
function Config:parts(given) end
--- FLOPs of one decoded token: the sum over the parts.
---@param given? {context?: integer, source?: integer}
---@return integer
function Config:flops(given) end
--- The formula's bytes, exact, not rounded to the tiles of attune's cache.
---@param given {context: integer, batch?: integer, dtype?: attune.model.CacheDtype,
---  source?: integer}
---@return integer
function Config:kv_bytes(given) end
--- What attune's own caches take.
---@param given {context: integer, batch?: integer, dtype?: attune.model.CacheDtype,
---  source?: integer}
---@return integer
function Config:cache_bytes(given) end
--- The longest context whose cache fits into a part of the memory of the chips.
---@param given {batch?: integer, memory: integer, fraction?: number, chips?: integer,
---  sharding?: "heads"|"batch", dtype?: attune.model.CacheDtype}
---@return integer|number tokens; math.huge where a window fits
function Config:longest_context(given) end
--- One decoding step by the roofline.
---@param given {hardware: string|attune.model.Hardware, batch?: integer, context?: integer,
---  source?: integer, weights?: string, cache?: attune.model.CacheDtype, chips?: integer,
---  sharding?: "heads"|"batch"}
---@return attune.model.Step
function Config:decode(given) end
--- The model as it is, then with MHA, GQA-8, MQA, an i8 cache and a window.
---@param given table as of decode, and window
---@return attune.model.Variant[]
function Config:variants(given) end
--- The same model with other fields.
---@param changes attune.model.Fields
---@return attune.model.Config
function Config:with(changes) end
--- A picture of the block in letters.
---@return string the block as text
function Config:draw() end
--- A picture of the block.
---@return string the block as SVG
function Config:svg() end

---@class attune.TextStream
local Stream = {}
--- The text that is complete once this id has come.
---@param id integer
---@return string text never half a UTF-8 character
function Stream:push(id) end
--- What is left; closes the stream.
---@return string
function Stream:finish() end

---@class attune.Tokenizer
---@field size integer one more than the largest id
---@field bos? integer
---@field eos? integer
local Tokenizer = {}
--- The ids of a text. Text that is not UTF-8 raises an error.
---@param text string UTF-8
---@param options? {special?: boolean} true: with the special tokens around a text
---@return integer[] ids from 0
function Tokenizer:encode(text, options) end
--- The text of ids. Bytes that are no UTF-8 become U+FFFD.
---@param ids integer[]
---@param options? {special?: boolean} true: special tokens are text too
---@return string
function Tokenizer:decode(ids, options) end
--- Text of ids that come one by one.
---@param options? {special?: boolean}
---@return attune.TextStream
function Tokenizer:stream(options) end
--- The spelling of an id in the file; nil for an id that the vocabulary lacks.
---@param id integer
---@return string?
function Tokenizer:token(id) end
--- The id of a spelling in the file; nil where there is none.
---@param token string
---@return integer?
function Tokenizer:id(token) end

---@class attune.model.Sampling
---@field tokens? integer how many are added; 24, or fewer where learned positions end
---@field temperature? number 0, the default, is greedy
---@field top_k? integer
---@field top_p? number
---@field min_p? number
---@field repetition_penalty? number
---@field seed? integer
---@field stop? integer[] by default the model's ids of the end of a text; {} never stops
---@field cache? attune.model.CacheDtype
---@field decoder_ids? integer[][] T5: what the decoder starts with
---@field each? fun(row: integer, id: integer): boolean? called for each new id; false ends the row
---@field lookup? {ngram?: integer, tokens?: integer} speculative decoding: greedy only

--- A loaded model. Ids count from 0.
---@class attune.model.Model
---@field config table config.json as it was read, or what a GGUF file says in its words
---@field warnings string[] unknown fields, with {unknown = "warn"}
---@field vocab integer
---@field eos? integer|integer[] ids that end a text, of generation_config.json, else of config.json
---@field context integer tokens that the configuration names
---@field tokenizer? attune.Tokenizer
local Model = {}
--- The logits of every token.
---@param ids integer[][]
---@param options? {decoder_ids?: integer[][], summaries?: attune.SummaryName[]}
---@return attune.Tensor logits [batch, tokens, vocab]
---@return attune.Summaries[]? summaries of each block
function Model:forward(ids, options) end
--- Continues each row; greedy by default.
---@param ids integer[][]
---@param options? attune.model.Sampling
---@return integer[][] prompts and continuations; T5: the decoder's ids
---@return {passes: integer, proposed: integer, accepted: integer}? counts with lookup
function Model:generate(ids, options) end
--- Caches to which tokens are appended.
---@param options? {batch?: integer, context?: integer, cache?: attune.model.CacheDtype,
---  encoder_ids?: integer[][]}
---@return attune.model.Session
function Model:session(options) end
--- The mean of -log p over the ids after the first, in nats.
---@param ids integer[]
---@param options? {cache?: attune.model.CacheDtype, after?: integer}
---@return number nats
---@return integer count
function Model:loss(ids, options) end
--- The same model with other attention; other weights are shared.
---@param changes {kv_heads?: integer, window?: integer|false, rope_scaling?: table|false,
---  rope_base?: number, cache?: attune.model.CacheDtype, layers?: integer[]}
---@return attune.model.Model
function Model:with(changes) end

--- Caches to which tokens are appended.
---@class attune.model.Session
---@field length integer tokens so far
---@field nbytes integer that its caches take
local Session = {}
--- Appends tokens to every row. Raises an error where they do not fit into the context.
---@param ids integer[]|integer[][] one list for one row
---@param options? {summaries?: attune.SummaryName[]}
---@return attune.Tensor logits [batch, tokens, vocab] of the tokens appended
---@return attune.Summaries[]? summaries of each block
function Session:append(ids, options) end
--- Keeps the first n tokens.
---@param n integer
function Session:truncate(n) end
--- Frees the caches.
function Session:close() end
