-- m:generate over rows of different lengths, streaming and lookup; m:loss; summaries of a session.
local attune = require "attune"
local golden = require "tests.support.golden"
local model = require "attune.model"
local model_copy = require "tests.support.model_copy"

local source = model_copy.source
local function load(name) return assert(model.load(source .. name)) end

-- Ids that look random; n of them.
local function text(n, seed)
  local list = {}
  for t = 1, n do list[t] = (t * t * 7 + t * 31 * seed + seed) % 96 end
  return list
end

-- f, a function of one line, raises that message at its own line.
local function misuse(f, expected)
  local ok, message = pcall(f)
  assert.is_false(ok, expected)
  local at = ("generate_spec.lua:%d: "):format(debug.getinfo(f, "S").linedefined)
  local _, from = message:find(at, 1, true)
  assert.truthy(from, ("%s: expected '%s'"):format(message, at))
  assert.truthy(message:sub(from + 1):find(expected, 1, true) == 1, message)
end

local rows = {text(3, 1), text(19, 2), text(1, 3), text(11, 4)}

local function alone(m, o)
  local out = {}
  for b, row in ipairs(rows) do out[b] = m:generate({row}, o)[1] end
  return out
end

describe("rows of different lengths", function()
  for _, name in ipairs {
    "falcon_7b", "falcon_40b", "falcon_rw", "mpt", "bloom", "gpt2", "gpt_bigcode", "mistral",
    "gemma3", "gemma4_shared_kv", "llama_llama3", "phi3_longrope", "gpt_oss", "mixtral",
    "deepseek_v3", "smollm3", "cohere2",
  } do
    it("give the ids that each has alone: " .. name, function()
      local m = load(name)
      local o = {tokens = 12, stop = {}}
      if m.limit then o.tokens = math.min(12, m.limit - 18) end
      local expected = alone(m, o)
      assert.same(expected, m:generate(rows, o))
      -- Rows that end early leave the others as they are.
      o.stop = {expected[1][5], expected[2][21]}
      assert.same(alone(m, o), m:generate(rows, o))
    end)
  end
  it("do so in pieces, with rings, and by a rotation that follows from the length", function()
    local long = {text(150, 5), text(2, 6), text(70, 7), text(64, 8)}
    local scaled = load "llama_tied":with {rope_scaling = {
      type = "dynamic", factor = 4, original = 16,
    }}
    for _, m in ipairs {load "mistral", load "llama_tied", scaled} do
      local out = m:generate(long, {tokens = 6, stop = {}})
      for b, row in ipairs(long) do
        assert.same(m:generate({row}, {tokens = 6, stop = {}})[1], out[b])
      end
    end
  end)
  it("give the logits of each row's last token", function()
    for _, name in ipairs {"llama_tied", "mpt", "mistral"} do
      local m = load(name)
      local session = require "attune.model.session"
      local s = session.new(m, {batch = #rows, context = 64}, 1)
      local logits = s:last(rows)
      local more = s:last {{4}, {}, {7, 8}, {}}
      for b, row in ipairs(rows) do
        local own = m:session {context = 64}
        local first = own:append(row)
        local n = #row
        local d = golden.difference(logits:slice(1, b, b):contiguous():view(-1),
          first:slice(2, n, n):contiguous():view(-1))
        assert.truthy(d < 1e-4, ("%s: %g"):format(name, d))
        local next_ids = ({{4}, {}, {7, 8}, {}})[b]
        if #next_ids > 0 then
          local after = own:append(next_ids)
          d = golden.difference(more:slice(1, b, b):contiguous():view(-1),
            after:slice(2, #next_ids, #next_ids):contiguous():view(-1))
          assert.truthy(d < 1e-4, ("%s: %g"):format(name, d))
        end
      end
    end
  end)
  it("draw by seed, row and step, whatever the others", function()
    local m = load "llama_tied"
    local o = {tokens = 8, stop = {}, temperature = 1, seed = 3}
    local first = m:generate({rows[1]}, o)[1]
    assert.same(first, m:generate(rows, o)[1])
    -- More rows than run together.
    local many = {}
    for b = 1, 11 do many[b] = rows[1] end
    local out = m:generate(many, o)
    assert.same({11, first}, {#out, out[1]})
    assert.not_same(first, out[10])
  end)
end)

describe("m:generate", function()
  local m = load "falcon_7b"
  it("tells each id as it comes, and ends a row where the function returns false", function()
    local got = {{}, {}}
    local out = m:generate({rows[1], rows[4]}, {
      tokens = 9, stop = {},
      each = function(row, id)
        table.insert(got[row], id)
        if row == 2 then return #got[2] < 4 end
      end,
    })
    assert.same({9, 4}, {#got[1], #got[2]})
    for b, row in ipairs {rows[1], rows[4]} do
      assert.same(got[b], table.move(out[b], #row + 1, #out[b], 1, {}))
    end
    local ok, message = pcall(m.generate, m, {rows[1]}, {each = function() error "mine" end})
    assert.is_false(ok)
    assert.truthy(message:find("mine", 1, true))
    assert.has_error(function() m:generate({rows[1]}, {each = 5}) end)
  end)
  it("gives the same ids by lookup in fewer passes", function()
    for _, name in ipairs {"falcon_7b", "mistral", "llama_tied", "phi3_longrope", "gpt2"} do
      local x = load(name)
      local prompt = {5, 17, 3, 5, 17, 3, 5, 17}
      local o = {tokens = x.limit and x.limit - 7 or 60, stop = {}}
      local expected = x:generate({prompt}, o)[1]
      o.lookup = {ngram = 2, tokens = 4}
      local out, counts = x:generate({prompt}, o)
      assert.same(expected, out[1])
      assert.truthy(counts.accepted <= counts.proposed)
      -- Each pass gives the accepted ids and one more.
      assert.truthy(counts.passes + counts.accepted >= o.tokens - 1)
      o.stop = {expected[14]}
      local short = x:generate({prompt}, {tokens = o.tokens, stop = o.stop})
      assert.same(short, x:generate({prompt}, o))
    end
  end)
  it("gives the same ids by lookup where a rotation follows from the length", function()
    local scaled = load "llama_tied":with {rope_scaling = {
      type = "dynamic", factor = 4, original = 16,
    }}
    local o = {tokens = 60, stop = {}}
    local expected = scaled:generate({{5, 17, 3, 5, 17, 3}}, o)[1]
    o.lookup = {ngram = 1, tokens = 8}
    local out, counts = scaled:generate({{5, 17, 3, 5, 17, 3}}, o)
    assert.same(expected, out[1])
    -- Beyond the trained length nothing is proposed.
    assert.truthy(counts.proposed > 0, counts.proposed)
    assert.truthy(counts.passes >= 60 - 16, counts.passes)
  end)
  it("refuses logits that are NaN, and draws from infinite ones", function()
    local broken = model_copy.load("llama_tied", function(_, tensors)
      local name = "model.norm.weight"
      tensors[name] = attune.full(tensors[name].shape, 0 / 0)
    end)
    for _, o in ipairs {{}, {temperature = 1}, {repetition_penalty = 2}, {lookup = {}}} do
      local ok, message = pcall(broken.generate, broken, {{5}}, o)
      assert.is_false(ok)
      assert.truthy(message:find("logits: expected numbers, got NaN for id 0", 1, true), message)
    end
    -- The id that is there already gets an infinite logit, if its own one is positive.
    local drawn = load "llama_tied":generate({{5}}, {
      temperature = 1, seed = 1, repetition_penalty = 1e-308, tokens = 4, stop = {},
    })
    assert.same({5, 5, 5, 5, 5}, drawn[1])
  end)
  it("accepts what a text repeats", function()
    -- Greedy ids of tiny models end in cycles.
    local _, counts = m:generate({rows[1]}, {tokens = 200, stop = {}, lookup = {tokens = 6}})
    assert.truthy(counts.accepted > 50, counts.accepted)
    assert.truthy(counts.passes < 150, counts.passes)
  end)
  it("refuses lookup beside drawing, and options out of range", function()
    for expected, o in pairs {
      ["temperature 0"] = {lookup = {}, temperature = 1},
      ["no repetition_penalty"] = {lookup = {}, repetition_penalty = 1.1},
      ["lookup.tokens: expected an integer from 1 to 63, got 64"] = {lookup = {tokens = 64}},
      ["lookup.ngram"] = {lookup = {ngram = 0}},
      ["unknown field 'ngrams' of lookup"] = {lookup = {ngrams = 1}},
      ["stop: expected a list of ids, got 'a'"] = {stop = {"a"}},
      ["stop: expected a list of ids, got a table with the field 'eos'"] = {stop = {eos = 5}},
      ["stop: expected ids from 0 to 95, got 96"] = {stop = {5, 96}},
      ["stop: expected ids from 0 to 95, got -1"] = {stop = {-1}},
      ["decoder_ids: expected nil"] = {decoder_ids = {{1}}},
    } do
      local ok, message = pcall(m.generate, m, {rows[1]}, o)
      assert.is_false(ok)
      assert.truthy(message:find(expected, 1, true), message)
    end
  end)
end)

describe("learned positions", function()
  local m = load "gpt2" -- 40 of them
  it("let a row get one id more than they have room for, since no one reads it", function()
    local out = m:generate({{1}, text(40, 2), text(19, 3)}, {tokens = 1, stop = {}})
    assert.same({2, 41, 20}, {#out[1], #out[2], #out[3]})
    out = m:generate({{1}}, {tokens = 40, stop = {}})[1]
    assert.same(41, #out)
    -- The 40th id is the one with the largest of forward's logits.
    local logits = m:forward {table.move(out, 1, 40, 1, {})}
    assert.same(out[41], logits:slice(2, 40, 40):contiguous():view(1, -1):argmax(2)[1]:item() - 1)
    misuse(function() m:generate({text(9, 1), {1}}, {tokens = 33}) end, "tokens: expected at most "
      .. "32 after a prompt of 9, as the model has positions for 40 tokens, got 33")
    misuse(function() m:generate {text(41, 1)} end, "ids: expected at most 40 tokens")
  end)
  it("end each row of a call that names no number of tokens", function()
    local several = {text(3, 1), text(30, 2), text(40, 3)}
    for _, o in ipairs {{stop = {}}, {stop = {}, lookup = {tokens = 5}}} do
      local out = m:generate(several, o)
      assert.same({27, 41, 41}, {#out[1], #out[2], #out[3]})
      for b, row in ipairs(several) do
        assert.same(m:generate({row}, {tokens = #out[b] - #row, stop = {}})[1], out[b])
      end
    end
  end)
end)

describe("m:generate of a model with an encoder", function()
  local m = load "t5"
  it("refuses other numbers of decoder rows, at the caller's line", function()
    misuse(function() m:generate({{1}, {2}}, {decoder_ids = {{0}}}) end,
      "decoder_ids: expected 2 rows, as ids, got 1")
    misuse(function() m:generate({{1}}, {decoder_ids = {{0}, {0}}}) end,
      "decoder_ids: expected 1 rows, as ids, got 2")
    misuse(function() m:forward({{1}}, {decoder_ids = {{0}, {0}}}) end,
      "decoder_ids: expected 1 rows, as ids, got 2")
    misuse(function() m:forward {{1}, {2, 3}} end, "ids: expected rows of one length, got 1 and 2")
  end)
  it("continues decoder rows of different lengths as each alone", function()
    local sources, targets = {{5, 17, 3}, {9, 4}}, {{0, 7, 12}, {0}}
    local out = m:generate(sources, {tokens = 5, stop = {}, decoder_ids = targets})
    for b = 1, 2 do
      local o = {tokens = 5, stop = {}, decoder_ids = {targets[b]}}
      assert.same(m:generate({sources[b]}, o)[1], out[b])
    end
  end)
end)

describe("misuse of a model", function()
  it("is an error at the caller's line, also while generating", function()
    local m, t5 = load "llama_tied", load "t5"
    local later = model_copy.load("gemma3", function(c) c.use_bidirectional_attention = true end)
    misuse(function() later:generate {{5}} end, "expected a causal model")
    misuse(function() later:loss {5, 6} end, "expected a causal model")
    misuse(function() later:session {} end, "expected a causal model")
    misuse(function() m:session {context = 0} end, "context: expected an integer from 1 to 2^40, "
      .. "got 0")
    misuse(function() m:session {batch = "a"} end, "batch: expected an integer from 1 to 2^40, "
      .. "got 'a'")
    local cache = "cache: expected f32, bf16, f16 or i8, got 'f64'"
    misuse(function() m:session {cache = "f64"} end, cache)
    misuse(function() m:generate({{1}}, {cache = "f64"}) end, cache)
    misuse(function() m:loss({1, 2}, {cache = "f64"}) end, cache)
    local rows_expected = "ids: expected rows of token ids, such as {{5, 17}}, got "
    misuse(function() m:generate {5, 17} end, rows_expected .. "a list whose first element is 5")
    misuse(function() m:generate {} end, rows_expected .. "an empty table")
    misuse(function() m:loss() end, "ids: expected a list of ids, such as {5, 17}, got nil")
    misuse(function() m:session {encoder_ids = {{1}}} end, "encoder_ids: expected nil")
    misuse(function() m:generate({{1}}, {tokens = 1 << 50}) end, "tokens: expected at most 2^40")
    misuse(function() t5:session {} end, "encoder_ids: expected rows of token ids")
    misuse(function() t5:session {encoder_ids = {{1}, {2}}} end, "encoder_ids: expected 1 rows, "
      .. "got 2")
    misuse(function() t5:session {encoder_ids = {{1}, {2, 3}}, batch = 2} end,
      "encoder_ids: expected rows of one length, got 1 and 2")
    misuse(function() t5:loss {1, 2} end, "expected a model without encoder")
  end)
end)

describe("the loss of a model", function()
  it("is that of its logits", function()
    for _, name in ipairs {"llama_tied", "mistral", "gemma2"} do
      local m, ids = load(name), text(150, 2)
      local logits = m:forward({ids}):to("f64"):tolist()[1]
      local function expected(after)
        local sum = 0
        for t = after + 1, #ids do
          local row, total = logits[t - 1], 0
          for _, x in ipairs(row) do total = total + math.exp(x) end
          sum = sum + math.log(total) - row[ids[t] + 1]
        end
        return sum / (#ids - after)
      end
      for _, after in ipairs {1, 70, 149} do
        local nats, count = m:loss(ids, {after = after})
        assert.same(150 - after, count)
        assert.truthy(math.abs(nats - expected(after)) < 1e-4, name)
      end
    end
  end)
  it("refuses a single id, and more ids before it than there are", function()
    local m = load "llama_tied"
    for expected, call in pairs {
      ["ids: expected at least 2"] = {{5}}, ["after: expected an integer from 1 to 1, got 2"] = {
        {5, 6}, {after = 2},
      },
      ["ids: expected a list of ids, such as {5, 17}, got 5"] = {5},
    } do
      local ok, message = pcall(m.loss, m, call[1], call[2])
      assert.is_false(ok)
      assert.truthy(message:find(expected, 1, true), message)
    end
  end)
end)

describe("summaries of a session", function()
  it("are those of forward, in any pieces", function()
    local names = {"entropy", "distance", "sinks", "columns"}
    for _, name in ipairs {"llama_tied", "gemma3", "gpt_oss"} do
      local m, ids = load(name), text(150, 3)
      local _, whole = m:forward({ids}, {summaries = names})
      local s = m:session {context = 200}
      local logits, all = s:append(ids, {summaries = names})
      assert.same({1, 150, 96}, logits.shape)
      assert.same(#whole, #all)
      for i, block in ipairs(whole) do
        for _, summary in ipairs(names) do
          local d = golden.difference(all[i][summary], block[summary])
          assert.truthy(d < 1e-3, ("%s layer %d %s: %g"):format(name, i, summary, d))
        end
      end
      local _, last = s:append({1, 2}, {summaries = {"columns"}})
      assert.same({1, m.network.blocks[1].attention.heads, 152}, last[1].columns.shape)
    end
  end)
end)
