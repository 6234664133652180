-- Models whose activations are quantised to 8 bits (compute = "i8"): an emulation in double
-- precision of the same quantisation (tests/golden/gguf/i8.py) gives the logits.
local attune = require "attune"
local golden = require "tests.support.golden"
local model = require "attune.model"

local path = "tests/golden/gguf/llama_q8_0.gguf"

describe("a model in integers", function()
  it("gives the logits of an emulation in double precision", function()
    local case, t = golden.load "gguf/llama_q8_0.i8.golden.safetensors"
    local m = assert(model.load(path, {compute = "i8"}))
    local logits = m:forward(t.input_ids:tolist())
    local d = golden.difference(logits, t.logits)
    assert.truthy(d <= case.bounds.logits, ("difference %g, bound %g"):format(
      d, case.bounds.logits))
    -- Not the logits of exact activations, which are further away.
    local exact = assert(model.load(path)):forward(t.input_ids:tolist())
    assert.truthy(golden.difference(exact, t.logits) > case.bounds.logits)
  end)
  it("gives the same ids at once, token by token and in pieces", function()
    local _, t = golden.load "gguf/llama_q8_0.i8.golden.safetensors"
    local m = assert(model.load(path, {compute = "i8"}))
    local ids = t.input_ids:tolist()[1]
    local bounds = golden.load "gguf/llama_q8_0.i8.golden.safetensors".bounds
    local all = m:session {context = 32}:append(ids)
    for _, chunk in ipairs {1, 5} do
      local s = m:session {context = 32}
      for first = 1, #ids, chunk do
        local last = math.min(#ids, first + chunk - 1)
        local got = s:append(table.move(ids, first, last, 1, {}))
        assert.truthy(golden.difference(got, all:slice(2, first, last):contiguous())
          <= bounds.logits)
      end
    end
  end)
  it("packs the blocks of a file, and leaves plain weights as they are", function()
    local file = assert(attune.open(path))
    local stored, packed = assert(file:_weight "token_embd.weight"),
      assert(file:_weight("token_embd.weight", "i8"))
    assert.same("Q8_0", packed.format)
    assert.same(stored.shape, packed.shape)
    -- A block of 34 bytes per row; the factors of each of the 6 panels are padded to 64 bytes.
    for _, weight in ipairs {stored, packed} do assert.same(96 * 34 + 6 * 32, weight.nbytes) end
    local ids = {0, 95, 17}
    assert.same(stored:rows(ids):tolist(), packed:rows(ids):tolist())
    local plain = assert(attune.open "tests/golden/gguf/llama_f16.gguf")
    local a, b = assert(plain:_weight "token_embd.weight"),
      assert(plain:_weight("token_embd.weight", "i8"))
    local x = attune.randn({3, 32}, {seed = 1})
    assert.same(a:apply(x):tolist(), b:apply(x):tolist())
  end)
  it("closes the activations of a prompt, whatever the collector does", function()
    local m = assert(model.load(path, {compute = "i8"}))
    local ids = {}
    for i = 1, 64 do ids[i] = i end
    collectgarbage()
    local before = attune.memory().bytes
    collectgarbage "stop"
    local logits = m:forward {ids}
    local left = attune.memory().bytes - before - logits.nbytes
    collectgarbage "restart"
    -- The stream is [64, 32] f32; each of 2 blocks makes more than 20 such tensors.
    assert.truthy(left <= 8 * 64 * 32 * 4, ("%d bytes left"):format(left))
  end)
  it("is chosen by name", function()
    assert.error_matches(function() model.load(path, {compute = "i4"}) end,
      'compute: expected "f32" or "i8", got \'i4\'')
  end)
end)
