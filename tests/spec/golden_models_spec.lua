-- Tiny models of every architecture: the logits of the published code within its bounds, the same
-- greedy ids, and the same logits token by token and in chunks. tests/golden/README.md says where
-- they come from.
local attune = require "attune"
local files = require "attune.util.files"
local golden = require "tests.support.golden"
local model = require "attune.model"
local model_copy = require "tests.support.model_copy"

local function within(bound, got, expected, what)
  local d = golden.difference(got, expected)
  assert.truthy(d <= bound, ("%s: difference %g, bound %g"):format(what, d, bound))
end

local function check_greedy(m, ids, expected)
  local generated = m:generate(ids, {tokens = #expected[1], stop = {}})
  for b, row in ipairs(expected) do
    assert.same(row, table.move(generated[b], #ids[b] + 1, #generated[b], 1, {}))
  end
end

local function check_session(m, ids, t, bound, chunk, more)
  local tokens = #ids[1]
  local s = m:session {
    batch = #ids, context = m.limit or 64, encoder_ids = more and more.encoder_ids,
  }
  for first = 1, tokens, chunk do
    local last, rows = math.min(tokens, first + chunk - 1), {}
    for b, row in ipairs(ids) do rows[b] = table.move(row, first, last, 1, {}) end
    within(bound, s:append(rows), t.logits:slice(2, first, last):contiguous(), "by " .. chunk)
  end
  assert.same(tokens, s.length)
  s:close()
end

describe("golden model", function()
  for _, name in ipairs(files.list "tests/golden/models") do
    local path = "tests/golden/models/" .. name
    local case, t = golden.load("models/" .. name .. "/golden.safetensors")
    local ids, bound = t.input_ids:tolist(), case.bounds.logits
    if t.decoder_input_ids then
      it(name .. " gives the published logits and ids of its decoder", function()
        local m, targets = assert(model.load(path)), t.decoder_input_ids:tolist()
        within(bound, m:forward(ids, {decoder_ids = targets}), t.logits, "forward")
        for _, chunk in ipairs {1, 3} do
          check_session(m, targets, t, bound, chunk, {encoder_ids = ids})
        end
        local expected = t.greedy:tolist()
        local generated = m:generate(ids, {tokens = 24, stop = {}, decoder_ids = targets})
        for b, row in ipairs(generated) do
          assert.same(expected[b], table.move(row, #targets[b] + 1, #row, 1, {}))
        end
        local free = m:generate(ids, {tokens = 3, stop = {}})[1]
        assert.same({4, 0}, {#free, free[1]})
      end)
    else
      it(name .. " gives the published logits and ids, also with its caches", function()
        local m = assert(model.load(path))
        assert.same({}, m.warnings)
        within(bound, m:forward(ids), t.logits, "forward")
        check_greedy(m, ids, t.greedy:tolist())
        for _, chunk in ipairs {1, 5} do check_session(m, ids, t, bound, chunk) end
      end)
    end
  end
  for _, name in ipairs {"llama_f32", "llama_f16", "llama_q8_0"} do
    it("gguf/" .. name .. " gives the published logits and ids", function()
      local case, t = golden.load("gguf/" .. name .. ".golden.safetensors")
      local m = assert(model.load("tests/golden/gguf/" .. name .. ".gguf"))
      local ids = t.input_ids:tolist()
      within(case.bounds.logits, m:forward(ids), t.logits, "forward")
      check_greedy(m, ids, t.greedy:tolist())
      check_session(m, ids, t, case.bounds.logits, 1)
      assert.same(96, m.vocab)
      assert.truthy(m.tokenizer)
    end)
  end
  for _, name in ipairs {"t5_relu", "t5_gated"} do
    it("gguf/" .. name .. " as llama.cpp converts it gives the published logits", function()
      local case, t = golden.load("gguf/" .. name .. ".golden.safetensors")
      local m = assert(model.load("tests/golden/gguf/" .. name .. ".gguf"))
      local ids = t.input_ids:tolist()
      local logits = m:forward(ids, {decoder_ids = t.decoder_ids:tolist()})
      within(case.bounds.logits, logits, t.logits, "forward")
      ids[1][#ids[1]] = nil -- the end, which is not of the text
      assert.same(ids[1], m.tokenizer:encode(case.params.text))
    end)
  end
  -- A golden model with other fields in its configuration, and more tensors.
  local function changed(name, change, more)
    local m, message
    model_copy.with_folder(name, function(config, tensors)
      change(config)
      for key, x in pairs(more) do tensors[key] = x end
    end, function(folder) m, message = model.load(folder) end)
    return m, message
  end
  it("gemma3 with tokens that attend to later ones gives the published logits", function()
    local case, t = golden.load "gemma3_bidirectional.safetensors"
    local m = assert(changed("gemma3", function(c) c.use_bidirectional_attention = true end, {}))
    local ids = t.input_ids:tolist()
    within(case.bounds.logits, m:forward(ids), t.logits, "forward")
    assert.has_error(function() m:session() end, "expected a causal model, got one whose tokens "
      .. "attend to later ones (use_bidirectional_attention): it has forward, but no session, "
      .. "generate or loss")
    assert.error_matches(function() m:generate {ids[1]} end, "^expected a causal model")
    assert.error_matches(function() m:loss(ids[1]) end, "^expected a causal model")
    assert.error_matches(function() m:forward {{5, 6}, {7}} end, "^ids: expected rows of one")
  end)
  it("mpt with learned positions gives the logits of its own code", function()
    local case, t = golden.load "mpt_learned.safetensors"
    local wpe = {["transformer.wpe.weight"] = t["transformer.wpe.weight"]}
    local function without_alibi(c) c.attn_config.alibi = false end
    local m, ids = assert(changed("mpt", without_alibi, wpe)), t.input_ids:tolist()
    within(case.bounds.logits, m:forward(ids), t.logits, "forward")
    for _, chunk in ipairs {1, 5} do check_session(m, ids, t, case.bounds.logits, chunk) end
    local none, message = changed("mpt", without_alibi, {})
    assert.falsy(none)
    assert.truthy(message:find("expected a tensor 'transformer.wpe.weight'", 1, true))
  end)
  it("has the same ids in shards, and in bf16 those of its rounded weights", function()
    local run = require "tests.support.run"
    local folder, source = run.folder(), "tests/golden/models/llama_tied"
    assert(files.make_folder(folder))
    local t = attune.load(source .. "/model.safetensors")
    assert(files.write(folder .. "/config.json", files.read(source .. "/config.json")))
    local parts, map, n = {{}, {}}, {}, 0
    local rounded = {}
    for name, x in pairs(t) do
      n = n + 1
      local part = n % 2 + 1
      parts[part][name], map[name] = x:to "bf16", ("part-%d.safetensors"):format(part)
      rounded[name] = parts[part][name]:to "f32"
    end
    for i, part in ipairs(parts) do
      assert(attune.save(("%s/part-%d.safetensors"):format(folder, i), part))
    end
    local json = require "attune.util.json"
    local index = folder .. "/model.safetensors.index.json"
    assert(files.write(index, json.encode {weight_map = map}))
    local ids = {{5, 17, 3, 90, 41, 8, 23}}
    local sharded = assert(model.load(folder)):forward(ids)
    assert(os.remove(index))
    assert(attune.save(folder .. "/model.safetensors", rounded))
    local whole = assert(model.load(folder)):forward(ids)
    run.remove(folder)
    assert.same(0, golden.difference(sharded, whole))
  end)
end)
