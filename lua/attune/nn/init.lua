--- Modules for training: layers, blocks and whole decoders, as plain Lua tables. See
--- docs/training.md.
local layers = require "attune.nn.layers"

return {
  module = require "attune.nn.module".class,
  Linear = layers.Linear, Embedding = layers.Embedding, RMSNorm = layers.RMSNorm,
  LayerNorm = layers.LayerNorm, Dropout = layers.Dropout, MLP = layers.MLP,
  Attention = require "attune.nn.attention", Block = require "attune.nn.block",
  Decoder = require "attune.nn.decoder", EncoderDecoder = require "attune.nn.encoder_decoder",
  loss = require "attune.nn.loss", count = require "attune.nn.count",
  match = require "attune.nn.match",
}
