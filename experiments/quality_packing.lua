--- Does packing short documents into rows cost quality, and what do masks and positions change?
--
-- The documents are the verses of the Bible (or the lines of `--set path=FILE`). A model is trained
-- on rows of one document each, filled up; or on rows that hold several documents, first-fit
-- decreasing. In packed rows positions run on or restart in each document, and attention is kept
-- inside documents by a mask or it is not. All are trained in as many steps on as many tokens of
-- text (rows of one document are more per step), and all are tested alike: one document per row,
-- from position 0. `tokens_computed` says what the filled rows cost.
local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"
local study = train.study

local sizes = {
  tiny = {d_model = 16, layers = 2, heads = 2, row = 48, batch = 4, tokens = 512, tested = 8},
  quick = {
    d_model = 32, layers = 2, heads = 4, row = 256, batch = 4, tokens = 65536, tested = 128,
  },
  study = {
    d_model = 96, layers = 4, heads = 6, row = 512, batch = 2, tokens = 1 << 20, tested = 2048,
  },
}

local packings = {
  ["separate"] = {packing = "separate"},
  ["running, mask"] = {packing = "packed", mask = true},
  ["running, no mask"] = {packing = "packed"},
  ["restarted, mask"] = {packing = "packed", mask = true, positions = "restart"},
  ["restarted, no mask"] = {packing = "packed", positions = "restart"},
}

local function loader(p, corpus, options, batch)
  local size = sizes[p.size]
  return data.loader {
    corpus = corpus, tokens = size.row, batch = batch or size.batch, seed = p.seed,
    packing = options.packing, mask = options.mask, positions = options.positions,
    order = options.order,
  }
end

-- Every packing of an encoding against separate rows.
local function against_separate(r, position)
  return r:where {position = position}:family("loss", {packing = "separate"}, "ratio")
end

-- A claim that a packing is within 1% of separate rows.
local function equal(position, packing)
  return function(r) return against_separate(r, position):of(packing):within(0.99, 1.01) end
end

return require "attune.experiment" {
  name = "quality_packing",
  about = "Does packing short documents into rows cost quality, and what do masks and positions "
    .. "change?",
  fixed = {size = "study", path = "bible", lr = 8e-3},
  grid = {
    position = {"learned", "rope", "alibi"},
    packing = {
      "separate", "restarted, mask", "restarted, no mask", "running, mask", "running, no mask",
    },
  },
  seeds = {1, 2, 3},
  derived = {text = function(p) return study.fingerprint(p.path) end},
  order = {"position", "packing", "lr", "size", "path", "text"},
  quick = {size = {"quick"}, position = {"learned", "rope"}, seeds = {1, 2}},
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    bits_per_byte = {
      unit = "bit/B", better = "lower", about = "of validation documents, each in a row of its own",
    },
    loss = study.metrics.loss,
    tokens_computed = {
      unit = "1", better = "lower", about = "of all rows, those that are filled up included",
    },
  },
  trial = function(p, t)
    local size, how = sizes[p.size], packings[p.packing]
    local training, validation = study.text(p.path, {separator = "\n"})
    if not training then return nil, validation end
    -- As many rows as hold the text of full ones.
    local waste = loader(p, training, how).waste
    local rows = math.floor(size.batch / (1 - waste) + 0.5)
    local steps = math.ceil(size.tokens / (size.row * rows * (1 - waste)))
    local batches = loader(p, training, how, rows)
    local model = nn.Decoder {
      vocab = 256, d_model = size.d_model, layers = size.layers, heads = size.heads,
      context = size.row, position = p.position, seed = p.seed,
    }
    study.train(t, {model = model, data = batches, lr = p.lr, seed = p.seed, steps = steps})
    local found = train.evaluate(model,
      loader(p, validation, {packing = "separate", order = "sequential"}),
      {batches = size.tested // size.batch})
    return {
      bits_per_byte = found.bits_per_byte, loss = found.loss,
      tokens_computed = steps * size.row * rows,
    }
  end,
  plots = {
    {kind = "heat", name = "table", x = "packing", y = "position", value = "bits_per_byte",
      title = "Bits per byte of documents alone, by packing of the training"},
    {kind = "bars", name = "computed", x = "packing", y = "tokens_computed", by = "position",
      title = "Tokens computed for the same text"},
  },
  claims = {
    {"RoPE: packed with a mask and restarted positions is within 1% of separate rows",
      equal("rope", "restarted, mask")},
    {"RoPE: packed with a mask and running positions is within 1% of separate rows, as scores "
      .. "depend on distances only", equal("rope", "running, mask")},
    {"ALiBi: packed with a mask and running positions is within 1% of separate rows",
      equal("alibi", "running, mask")},
    {"Learned positions that run on cost quality, even with a mask", function(r)
      return against_separate(r, "learned"):of "running, mask":above(1)
    end, source = "argued without figures in documentation of packing"},
    {"Learned positions: restarting them with a mask is within 1% of separate rows",
      equal("learned", "restarted, mask")},
    {"RoPE: without a mask quality differs from separate rows", function(r)
      return against_separate(r, "rope"):of "running, no mask":differs()
    end, source = "argued without figures in documentation of packing"},
    {"ALiBi: restarting positions without a mask is within 1% of running positions without one",
      function(r)
        return r:where {position = "alibi"}:family("loss", {packing = "running, no mask"}, "ratio")
          :of "restarted, no mask":within(0.99, 1.01)
      end},
  },
}
