--- Runs a decoder that a plain table describes (attune.model.architectures), without gradients.
---
--- A description: vocab, width, embedding = {name, scale, norm, positions}, blocks = {..}, norm,
--- head = {name | tied, bias, scale, softcap}. A block has norms before and after its two parts,
--- attention and mlp, each of which adds to the stream x [tokens of all rows, width]; `parallel`
--- gives both the same x.
local attune = require "attune"
local attend = require "attune.model.network.attend"
local core = require "attune.core"
local experts = require "attune.model.network.experts"
local layers = require "attune.model.network.layers"
local scope = require "attune.model.network.scope"

local decoder = {}
decoder.__index = decoder

local normalise, apply = layers.normalise, layers.apply

-- ---- making -------------------------------------------------------------------------------------

local function optional_norm(w, spec) return spec and layers.norm(w, spec) end

-- An input per layer and token (Gemma 4): gate(x), times the input, projected back.
local function layer_input(w, spec)
  return spec and {
    gate = layers.linear(w, spec.gate), projection = layers.linear(w, spec.projection),
    norm = layers.norm(w, spec.norm), activation = spec.activation,
  }
end

local function new_block(w, spec, blocks)
  local block = {
    parallel = spec.parallel, adds_to_normed = spec.adds_to_normed,
    attention = attend.new(w, spec.attention, blocks),
    norm1 = optional_norm(w, spec.norm1), norm2 = optional_norm(w, spec.norm2),
    after1 = optional_norm(w, spec.after1), after2 = optional_norm(w, spec.after2),
    layer_input = layer_input(w, spec.layer_input),
  }
  if spec.experts then
    block.experts = experts.new(w, spec.experts)
  else
    block.mlp = layers.mlp(w, spec.mlp)
  end
  if spec.cross then
    block.cross_norm = layers.norm(w, spec.cross_norm)
    block.cross = attend.new(w, spec.cross)
  end
  block.scalar = spec.scalar and w:get(spec.scalar, {1}):tolist()[1]
  return block
end

local function new_embedding(w, d)
  local e = d.embedding
  local positions = e.positions
  return {
    table = w:matrix(e.name .. ".weight", d.vocab, d.width), scale = e.scale,
    norm = optional_norm(w, e.norm),
    positions = positions and w:get(positions.name .. ".weight", {positions.rows, d.width}),
    offset = positions and positions.offset or 0,
  }
end

-- The inputs of all layers together: rows of a table of their own, and a projection of x.
local function new_layer_inputs(w, spec, d)
  local n = #d.blocks * spec.width
  return {
    table = w:matrix(spec.table .. ".weight", spec.vocab, n), table_scale = spec.table_scale,
    projection = layers.linear(w, {name = spec.projection, inputs = d.width, outputs = n}),
    projection_scale = spec.projection_scale, norm = layers.norm(w, spec.norm),
    width = spec.width,
  }
end

local function new_head(w, d, embedding)
  local head = d.head
  -- Published under several names.
  local name = head.name
  for _, other in ipairs(head.names or {}) do
    if not name or w:has(other .. ".weight") then name = other end
  end
  local bias = head.bias and w:get(name .. ".bias", {d.vocab})
  -- A head that the file has is used, whatever the configuration says, as in transformers.
  local matrix = embedding.table
  if not head.tied or w:has(name .. ".weight") then
    matrix = w:matrix(name .. ".weight", d.vocab, d.width)
  end
  return {linear = layers.linear_of(matrix, bias), scale = head.scale, softcap = head.softcap}
end

--- A decoder with the weights that its description names. Raises, without a position, where one is
--- missing or has another shape.
---@param w table attune.model.network.weights
---@param description table
function decoder.new(w, description)
  local d = description
  local self = setmetatable({description = d, blocks = {}}, decoder)
  self.embedding = new_embedding(w, d)
  self.layer_inputs = d.layer_inputs and new_layer_inputs(w, d.layer_inputs, d)
  for i, spec in ipairs(d.blocks) do self.blocks[i] = new_block(w, spec, self.blocks) end
  self.norm = optional_norm(w, d.norm)
  self.head = d.head and new_head(w, d, self.embedding)
  self.switches_at = w.switches_at -- texts of more tokens use other rotations (LongRoPE)
  return self
end

-- ---- running ------------------------------------------------------------------------------------

local function embed(self, ids, first)
  local e, d = self.embedding, self.description
  local batch, tokens = #ids, #ids[1]
  local x = e.table:rows(ids)
  if e.scale then x = x * e.scale end
  if e.positions then
    local at = {}
    for b = 1, batch do
      at[b] = {}
      -- Slots before the first token of a shorter row have no position; any will do.
      for t = 1, tokens do at[b][t] = math.max(first[b] + t - 1, 0) + e.offset end
    end
    x = x + core._embedding(e.positions, at)
  end
  x = x:view(batch * tokens, d.width)
  if e.norm then x = normalise(e.norm, x) end
  return x
end

-- [tokens, layers, width]
local function inputs_of_layers(self, ids, x)
  local l = self.layer_inputs
  local count, n = x.shape[1], #self.blocks
  local rows = l.table:rows(ids):view(count * n, l.width) * l.table_scale
  local own = (apply(l.projection, x) * l.projection_scale):view(count * n, l.width)
  return ((normalise(l.norm, own) + rows) * 2 ^ -0.5):view(count, n, l.width)
end

local function add_layer_input(block, x, input)
  local l = block.layer_input
  local gate = apply(l.gate, x)
  gate = layers.activate(l.activation, gate) * input
  return x + normalise(l.norm, apply(l.projection, gate))
end

local function run_block(block, x, call, i)
  local s <close> = scope.new()
  local from = block.norm1 and s(normalise(block.norm1, x)) or x
  local a = s(attend.run(block.attention, from, call, i))
  if block.after1 then a = s(normalise(block.after1, a)) end
  local into = x
  if block.parallel then
    if block.norm2 then from = s(normalise(block.norm2, x)) end
  else
    into = s((block.adds_to_normed and from or x) + a)
    if block.cross then
      into = s(into + attend.cross(block.cross, normalise(block.cross_norm, into), call, i))
    end
    from = block.norm2 and s(normalise(block.norm2, into)) or into
  end
  local m = s(block.experts and experts.run(block.experts, from) or layers.run_mlp(block.mlp, from))
  if block.after2 then m = s(normalise(block.after2, m)) end
  local y
  if block.parallel then
    y = s(x + a) + m
  else
    y = (block.adds_to_normed and from or into) + m
  end
  if block.layer_input then
    y = add_layer_input(block, y, call.inputs:slice(2, i, i):contiguous():view(y.shape[1], -1))
  end
  return block.scalar and y * block.scalar or y
end

--- The stream after the last norm, [tokens of all rows, width].
---@param ids integer[][] rows of one length
---@param call table {batch, tokens, first = {positions of the first tokens}, caches = {..} or nil,
---  counts = how many tokens of each row are its own, which are its last ones; nil: all,
---  own_first = with counts, for each slot [batch * tokens] the one, from 1, whose keys the caches
---  take, long = whether the text is longer than the trained length, memory = keys and values of
---  an encoder, summaries = what attention should tell, summaries_of = filled with it per block}
function decoder:run(ids, call)
  local x = embed(self, ids, call.first)
  call.inputs = self.layer_inputs and inputs_of_layers(self, ids, x)
  for i, block in ipairs(self.blocks) do
    local before <close> = x
    x = run_block(block, before, call, i)
  end
  if not self.norm then return x end
  local last <close> = x
  x = normalise(self.norm, last)
  return x
end

--- x [tokens, width] -> logits [tokens, vocab].
function decoder:logits(x)
  local head = self.head
  local logits = apply(head.linear, x)
  if head.scale then
    local from <close> = logits
    logits = from * head.scale
  end
  if head.softcap then
    local from <close> = logits
    local share <close> = from * (1 / head.softcap)
    local bounded <close> = share:tanh()
    logits = bounded * head.softcap
  end
  return logits
end

--- The keys and values of the encoder's output x for the blocks that attend to it.
function decoder:cross_keys(x, batch, tokens)
  local memory = {}
  for i, block in ipairs(self.blocks) do
    memory[i] = attend.keys(block.cross, x, batch, tokens)
  end
  return memory
end

--- One cache per block that has keys of its own.
---@param options {batch: integer, context: integer, dtype: string}
function decoder:caches(options)
  local caches = {}
  for i, block in ipairs(self.blocks) do
    local a = block.attention
    if not a.shares then
      local ring = a.window and a.window + 63 < options.context
      caches[i] = attune.cache {
        batch = options.batch, kv_heads = a.kv_heads, head_dim = a.head_dim,
        v_head_dim = a.v_head_dim, dtype = options.dtype, window = ring and a.window or nil,
        capacity = not ring and options.context or nil,
      }
    end
  end
  return caches
end

return decoder
