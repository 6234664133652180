-- What small models learn is known: induction and associative recall need two layers (Olsson et al.
-- 2022, arXiv 2209.11895; Arora et al. 2023, arXiv 2312.04927). The first layer tells each token
-- which one came before it; the second looks for it.
local data = require "attune.data"
local nn = require "attune.nn"
local optim = require "attune.optim"
local train = require "attune.train"

local warmup, rows, part = 100, 32, 50

-- The best accuracy while a model of this number of layers is trained; the training ends
-- when it reaches `enough`.
local function best_accuracy(task, options, layers, steps, enough)
  local seen, unseen = task(1), task(2)
  local model = nn.Decoder {
    vocab = seen.vocab, context = seen.tokens, layers = layers, heads = 2, seed = options.seed,
    d_model = options.d_model, mlp = options.mlp, position = options.position, std = options.std,
  }
  local optimizer = optim.adamw(model:parameters(), {betas = {0.9, 0.95}})
  local best = 0
  for first = 0, steps - 1, part do
    train.run {
      model = model, data = seen, batch = rows, steps = part, optimizer = optimizer, clip = 1,
      log = false,
      schedule = function(step) return options.lr * math.min(1, (first + step) / warmup) end,
    }
    local accuracy = train.accuracy(model, unseen, {batches = 4, batch = rows})
    best = math.max(best, accuracy)
    if best >= enough then break end
  end
  return best
end

local function check(task, options)
  it("is learned by two layers", function()
    local accuracy = best_accuracy(task, options, 2, 1500, 0.95)
    assert.is_true(accuracy >= 0.95, accuracy)
  end)
  -- Two layers need about as many steps.
  it("is not learned by one layer", function()
    local accuracy = best_accuracy(task, options, 1, 350, 0.95)
    assert.is_true(accuracy <= 0.5, accuracy)
  end)
end

describe("induction", function()
  check(function(seed)
    return data.task("induction", {vocab = 32, tokens = 24, seed = seed})
  end, {d_model = 48, mlp = "gelu", position = "rope", std = 0.09, lr = 4e-3, seed = 3})
end)

-- One layer can tell which values have not been asked yet: of 6 pairs it could get 41% right so,
-- of 4 pairs 52%.
describe("associative recall (mqar)", function()
  check(function(seed)
    return data.task("mqar", {vocab = 32, tokens = 24, pairs = 6, seed = seed})
  end, {d_model = 32, mlp = "none", position = "learned", std = 0.11, lr = 5e-3, seed = 1})
end)
