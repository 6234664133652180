-- An experiment: run it with `attune run examples/window.lua`.
local attune = require "attune"

return require "attune.experiment" {
  name = "window",
  about = "What does a sliding window save?",
  fixed = {heads = 8, head_dim = 64, tokens = 4096},
  grid = {window = {128, 512, 2048, 4096}},
  quick = {tokens = 512, window = {128, 512}, rounds = 1},
  metrics = {seconds = {unit = "s", better = "lower"}},
  trial = function(p, t)
    local x = attune.randn({1, p.heads, p.tokens, p.head_dim}, {seed = p.seed})
    local options = {causal = true, window = p.window}
    return {seconds = t:time(function() attune.attention(x, x, x, options) end)}
  end,
  plots = {{kind = "line", x = "window", y = "seconds", log = "xy"}},
}
