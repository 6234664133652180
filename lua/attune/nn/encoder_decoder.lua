--- An encoder and a decoder with cross-attention, which share the embedding: Vaswani et al. 2017.
local core = require "attune.core"
local class = require "attune.nn.module".class
local Decoder = require "attune.nn.decoder"

local EncoderDecoder = class "EncoderDecoder"

---@param given table options of nn.Decoder, and encoder_layers; each half has tensors under
--- `encoder.` and `decoder.`
function EncoderDecoder:init(given)
  local of_encoder, of_decoder = {}, {}
  for name, value in next, given do
    if name ~= "encoder_layers" then of_encoder[name], of_decoder[name] = value, value end
  end
  local count = rawget(given, "encoder_layers")
  if math.type(count) ~= "integer" or count < 1 then
    core._raise(("encoder_layers: expected an integer of at least 1, got %s"):format(count))
  end
  of_encoder.layers, of_encoder.causal, of_encoder.tied = count, false, true
  of_decoder.cross = true
  self.decoder = Decoder(of_decoder)
  self.encoder = Decoder(of_encoder, self.decoder.embed)
end

--- Hidden states of the source.
function EncoderDecoder:encode(ids, context) return self.encoder:hidden(ids, context) end

--- ids of the source and of the target -> logits of the target.
function EncoderDecoder:forward(ids, decoder_ids, context)
  local of_decoder = {memory = self:encode(ids, context)}
  return self.decoder:forward(decoder_ids, of_decoder)
end

--- As Decoder:loss, given the ids of the source first.
function EncoderDecoder:loss(source, ids, targets, weights)
  return self.decoder:loss(ids, targets, weights, {memory = self:encode(source)})
end

return EncoderDecoder
