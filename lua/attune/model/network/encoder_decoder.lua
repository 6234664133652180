--- An encoder and a decoder that attends to its output (T5), each a decoder of
--- attune.model.network.decoder; the encoder has no head and is not causal.
local decoder = require "attune.model.network.decoder"

local encoder_decoder = setmetatable({}, {__index = decoder})
encoder_decoder.__index = encoder_decoder

--- As decoder.new; description.encoder describes the encoder.
function encoder_decoder.new(w, description)
  local self = setmetatable(decoder.new(w, description), encoder_decoder)
  self.encoder = decoder.new(w, description.encoder)
  self.start = description.start
  return self
end

--- What the decoder's blocks attend to: keys and values of each, for the encoder's ids.
---@param ids integer[][] rows of one length
---@return table memory
function encoder_decoder:memory(ids)
  local batch, tokens, first = #ids, #ids[1], {}
  for b = 1, batch do first[b] = 0 end
  local x = self.encoder:run(ids, {batch = batch, tokens = tokens, first = first})
  return self:cross_keys(x, batch, tokens)
end

return encoder_decoder
