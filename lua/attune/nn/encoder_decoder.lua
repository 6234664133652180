--- An encoder and a decoder with cross-attention, which share the embedding: Vaswani et al. 2017.
local core = require "attune.core"
local class = require "attune.nn.module".class
local config = require "attune.nn.config"
local Decoder = require "attune.nn.decoder"
local describe = require "attune.util.options".describe

local EncoderDecoder = class "EncoderDecoder"
EncoderDecoder._reads_source = true -- train.evaluate: a batch begins with the ids of the source

---@param given table options of nn.Decoder, and encoder_layers; each half has tensors under
--- `encoder.` and `decoder.`
function EncoderDecoder:init(given)
  if type(given) ~= "table" then
    core._raise(("options: expected a table {vocab = 256, d_model = 128, layers = 4, heads = 4, "
      .. "encoder_layers = 4}, got %s"):format(describe(given)))
  end
  local of_encoder, of_decoder = {}, {}
  for name, value in next, given do
    if name ~= "encoder_layers" then of_encoder[name], of_decoder[name] = value, value end
  end
  local count = rawget(given, "encoder_layers")
  if math.type(count) ~= "integer" or count < 1 then
    core._raise(("encoder_layers: expected an integer of at least 1, got %s"):format(
      describe(count)))
  end
  of_encoder.layers, of_encoder.causal, of_encoder.tied = count, false, true
  of_decoder.cross = true
  self.decoder = Decoder(of_decoder, nil, nil, "decoder.")
  self.config = config.public(self.decoder._c)
  self.config.encoder_layers, self.config.cross = count, nil
  -- The decoder has dropouts 0 to 3 times its layers.
  self.encoder =
    Decoder(of_encoder, self.decoder.embed, 3 * self.decoder._c.layers + 1, "encoder.")
  self.encoder._is_encoder = true -- count.lua: without a head
end

--- Hidden states of the source.
---@param context? attune.Context of the source
function EncoderDecoder:encode(ids, context) return self.encoder:hidden(ids, context) end

-- The context of the target.
local function with_memory(self, source, context)
  return {
    memory = self:encode(source, context), dropout_step = context and context.dropout_step,
  }
end

--- ids of the source and of the target -> logits of the target.
---@param context? attune.Context of the source
function EncoderDecoder:forward(ids, decoder_ids, context)
  return self.decoder:forward(decoder_ids, with_memory(self, ids, context))
end

--- As Decoder:loss, given the ids of the source first.
---@param context? attune.Context of the source
function EncoderDecoder:loss(source, ids, targets, weights, context)
  return self.decoder:loss(ids, targets, weights, with_memory(self, source, context))
end

return EncoderDecoder
