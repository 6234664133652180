--- Training: the loop, checkpoints, evaluation. See docs/training.md.
local checkpoint = require "attune.train.checkpoint"
local evaluate = require "attune.train.evaluate"

return {
  run = require "attune.train.run",
  save = checkpoint.save, load = checkpoint.load,
  evaluate = evaluate.loss, accuracy = evaluate.accuracy,
  generate = require "attune.train.generate",
  study = require "attune.train.study",
}
