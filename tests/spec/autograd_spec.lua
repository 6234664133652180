--- Gradients of every operation against central differences in f64, and f32 beside f64; the life of
--- a graph; misuse.
local attune = require "attune"
local layers = require "attune.autograd.layers"
local gradients = require "tests.support.gradients"
local fails = require "tests.support.expect".fails

local normal, positive = gradients.normal, gradients.positive

local function check(name, fn, inputs)
  it(name, function() gradients.check(fn, inputs) end)
end

describe("the gradient of", function()
  for _, name in ipairs {"exp", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "abs", "relu"} do
    check(name, function(x) return x[name](x) end, {normal(3, 5)})
  end
  for _, name in ipairs {"log", "sqrt"} do
    check(name, function(x) return x[name](x) end, {positive(3, 5)})
  end
  check("minus", function(x) return -x end, {normal(3)})
  check("+ with broadcasting", function(a, b) return a + b end, {normal(2, 3, 4), normal(3, 1)})
  check("+ of a row", function(a, b) return a + b end, {normal(2, 3, 4), normal(4)})
  check("- of both sides repeated", function(a, b) return a - b end,
    {normal(3, 1), normal(2, 1, 4)})
  check("*", function(a, b) return a * b end, {normal(2, 3, 4), normal(1, 4)})
  check("* with itself", function(a) return a * a end, {normal(2, 3)})
  check("/", function(a, b) return a / b end, {normal(2, 3, 4), positive(3, 1)})
  check("^", function(a, b) return a ^ b end, {positive(2, 3, 4), normal(3, 1)})
  check("arithmetic with numbers", function(a)
    return (2 - a * 3 + a / 4 + 1) ^ 2 + 3 / a + 2 ^ a - (-a)
  end, {positive(2, 3)})
  check("matmul", attune.matmul, {normal(3, 4), normal(4, 2)})
  check("matmul of a batch with one matrix", attune.matmul, {normal(2, 3, 4), normal(4, 2)})
  check("matmul of two batches", attune.matmul, {normal(2, 1, 3, 4), normal(3, 4, 2)})
  check("matmul of one matrix with a batch", attune.matmul, {normal(3, 4), normal(3, 4, 2)})
  check("sum", function(a) return a:sum() end, {normal(3, 4)})
  check("sum over an axis", function(a) return a:sum(1), a:sum(-2), a:sum(3) end, {normal(3, 4, 2)})
  check("sum over the only axis", function(a) return a:sum(1) end, {normal(3)})
  check("mean", function(a) return a:mean() * a:mean(2) end, {normal(3, 4)})
  check("softmax", function(a) return a:softmax(2), a:softmax(-1) end, {normal(3, 4, 2)})
  check("view and transpose", function(a)
    return a:view(6, 2) * a:transpose(1, 2):contiguous():view(6, 2)
  end, {normal(3, 4)})
  check("slice", function(a) return a:slice(2, 2, 3) * a:slice(-1, -2, -1) end, {normal(3, 4)})
  check("an index", function(a) return a[2] * a[-1] + a[1][2] end, {normal(3, 4)})
  check("expand", function(a) return a:expand(5, 3, 4) end, {normal(3, 1)})
  check("rms_norm", function(x, w) return x:rms_norm(w, 1e-6), x:rms_norm() end,
    {normal(3, 5), normal(5)})
  check("layer_norm", function(x, w, b)
    return x:layer_norm(w, b), x:layer_norm(w), x:layer_norm(nil, b), x:layer_norm()
  end, {normal(3, 5), normal(5), normal(5)})
  check("swiglu", layers.swiglu, {normal(3, 5), normal(3, 5)})
  check("linear", layers.linear, {normal(2, 3, 5), normal(4, 5), normal(4)})
  check("linear without a bias", layers.linear, {normal(2, 5), normal(4, 5)})
  check("embedding", function(t) return layers.embedding(t, {{0, 2}, {2, 1}}) end, {normal(4, 3)})
  check("cross_entropy", function(x) return layers.cross_entropy(x, {{0, 2}, {-1, 1}}) end,
    {normal(2, 2, 3)})

  local function attention(options)
    return function(q, k, v) return attune.attention(q, k, v, options) end
  end
  local function qkv() return {normal(2, 4, 5, 4), normal(2, 2, 7, 4), normal(2, 2, 7, 2)} end
  check("attention and its lse", attention(), qkv())
  check("attention with window and softcap",
    attention {causal = true, window = 4, scale = 0.4, softcap = 5}, qkv())
  check("attention over documents", attention {lengths = {3, 4}},
    {normal(2, 4, 7, 4), normal(2, 2, 7, 4), normal(2, 2, 7, 2)})
  local rope = attune.position("rope", {head_dim = 4})
  check("attention that rotates", attention {rotate = rope, causal = true}, qkv())
  check("attention with sinks", function(q, k, v, sinks)
    return attune.attention(q, k, v, {sinks = sinks, causal = true})
  end, {normal(1, 2, 3, 3), normal(1, 1, 3, 3), normal(1, 1, 3, 2), normal(2)})
  check("attention with a score that reads tensors", function(q, k, v, s)
    return attune.attention(q, k, v, {
      causal = true,
      score = function(x, at) return x * s[at.h] + s[at.kv]:tanh() end,
    })
  end, {normal(1, 2, 3, 3), normal(1, 1, 3, 3), normal(1, 1, 3, 2), normal(2)})
  check("a rotation", function(x) return rope:rotate(x, {3, 1, 7}) end, {normal(1, 2, 3, 4)})
  local sines = attune.position("sinusoidal", {d_model = 4})
  check("sinusoidal positions", function(x) return sines:embed(x, {3, 1, 7}) end, {normal(1, 3, 4)})
  local projection = attune.favor_projection {head_dim = 4, features = 8, seed = 1}
  check("linear attention", function(q, k, v)
    return attune.linear_attention(q, k, v, {causal = true, projection = projection})
  end, {normal(1, 2, 3, 4), normal(1, 1, 3, 4), normal(1, 1, 3, 2)})

  check("attune.rope", function(x)
    return attune.rope(x, {base = 100, pairing = "interleaved", positions = {3, 1, 7}}),
      attune.rope(x)
  end, {normal(1, 2, 3, 4)})
  check("merge", attune.merge,
    {normal(1, 2, 3, 4), normal(1, 2, 3), normal(1, 2, 3, 4), normal(1, 2, 3)})
  it("merge where neither part sees a key is zero", function()
    local none = attune.full({1, 1, 1}, -math.huge)
    local o1 = attune.zeros({1, 1, 1, 2}):requires_grad()
    attune.merge(o1, none, attune.zeros {1, 1, 1, 2}, none):sum():backward()
    assert.same({{{{0, 0}}}}, o1.grad:tolist())
  end)
  it("weights and features is none: an error says so", function()
    local q = attune.ones({1, 1, 2, 4}):requires_grad()
    fails("attention_weights: .*no_grad", function() attune.attention_weights(q, q) end)
    attune.no_grad(attune.attention_weights, q, q)
  end)

  it("a learned encoding's table", function()
    local pe = attune.position("learned", {d_model = 2, max_positions = 5, seed = 1})
    pe.table:requires_grad()
    pe:embed(attune.zeros {1, 3, 2}, {3, 1, 3}):sum():backward()
    assert.same({{0, 0}, {1, 1}, {0, 0}, {2, 2}, {0, 0}}, pe.table.grad:tolist())
  end)

  it("a T5 table, as the score reads it", function()
    local pe = attune.position("t5", {heads = 2, buckets = 4, max_distance = 8, seed = 1})
    pe.table:requires_grad()
    local q = attune.randn({1, 2, 6, 4}, {seed = 1})
    local o = attune.attention(q, q, q, {score = pe.score, causal = true});
    (o * o):sum():backward()
    assert.same({4, 2}, pe.table.grad.shape)
    assert.is_true(pe.table.grad:abs():sum():item() > 0)
  end)

  it("a conversion has the dtype of the argument", function()
    local x = normal(3):to("bf16"):requires_grad()
    x:to("f32"):sum():backward()
    assert.same("bf16", x.grad.dtype)
    assert.same({1, 1, 1}, x.grad:tolist())
  end)
end)

describe("a graph", function()
  it("adds to gradients until they are set to nil", function()
    local w = attune.ones({2}):requires_grad()
    for _ = 1, 3 do (w * 2):sum():backward() end
    assert.same({6, 6}, w.grad:tolist())
    w.grad = nil
    assert.is_nil(w.grad)
    ;(w * 2):sum():backward()
    assert.same({2, 2}, w.grad:tolist())
  end)

  it("is not recorded in no_grad, also after an error", function()
    local w = attune.ones({2}):requires_grad()
    local y = attune.no_grad(function(x) return x * 2 end, w)
    fails("depends on none", function() y:sum():backward() end)
    fails("on purpose", function() attune.no_grad(function() error "on purpose" end) end)
    ;(w * 2):sum():backward()
    assert.same({2, 2}, w.grad:tolist())
  end)

  it("keeps what backward needs, and graph_bytes counts it once", function()
    local w = attune.ones({10}):requires_grad()
    local x = attune.ones {10}
    local y = w * x -- keeps x
    local loss = (y * y):sum() -- keeps y
    assert.same(80, attune.graph_bytes(loss))
    loss:backward()
    assert.same(2, w.grad:tolist()[1])
  end)

  it("is freed while it is walked: a second backward says so", function()
    local w = attune.ones({2}):requires_grad()
    local loss = (w * w):sum()
    loss:backward()
    fails("freed", function() loss:backward() end)
    fails("freed", function() attune.graph_bytes(loss) end)
  end)

  it("frees its memory without waiting for the collector", function()
    collectgarbage()
    collectgarbage "stop"
    local w = attune.ones({1000}):requires_grad()
    local y = w * w
    for _ = 1, 4 do
      local next_y = y:tanh() -- keeps its result
      y:close()
      y = next_y
    end
    local loss = y:sum()
    y:close()
    local before = attune.memory().bytes
    loss:backward()
    local after = attune.memory().bytes
    collectgarbage "restart"
    assert.is_true(before - after >= 3 * 4000, ("%d, then %d"):format(before, after))
  end)

  it("does not break when tensors of the user are closed", function()
    local w = attune.full({2}, 3):requires_grad()
    local y = w * w
    local loss = (y * y):sum()
    y:close()
    loss:backward()
    assert.same({108, 108}, w.grad:tolist())
  end)

  it("notices that a kept tensor was written in place", function()
    local q = attune.ones({1, 1, 2, 4}):requires_grad()
    local x = attune.ones {1, 1, 2, 4}
    local loss = (q * x):sum()
    attune.no_grad(function() require "attune.core"._element(x, 1, 5) end)
    fails("modified in place", function() loss:backward() end)
  end)

  it("does not go through tensors that need no gradient", function()
    local w = attune.ones({2}):requires_grad()
    local x = attune.ones {2}
    ;(w * x):sum():backward()
    assert.is_nil(x.grad)
  end)
end)

describe("the gradient of an embedding", function()
  local ids = {{0, 2}, {2, 1}}
  local function backward(rows)
    layers.embedding(rows, ids):sum():backward()
    return rows.grad
  end
  it("is added in place to the gradient that a leaf has", function()
    local rows = attune.randn({3, 4}, {seed = 1, dtype = "f64"}):requires_grad()
    local first = backward(rows)
    local second = backward(rows)
    assert.is_true(rawequal(first, second))
    assert.same({{2, 2, 2, 2}, {2, 2, 2, 2}, {4, 4, 4, 4}}, second:tolist())
  end)
  it("leaves a gradient alone that others see", function()
    local rows = attune.randn({3, 4}, {seed = 1}):requires_grad()
    local view = backward(rows):view(12)
    local second = backward(rows)
    assert.same({1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2}, view:tolist())
    assert.same({4, 4, 4, 4}, second[3]:tolist())
  end)
end)

describe("misuse of gradients:", function()
  local w = attune.ones({2, 2}):requires_grad()
  it("a gradient of a gradient is refused", function()
    (w * w):sum():backward()
    fails("double backward", function() w.grad:sum():backward() end)
    fails("double backward", function() (w * w):sum():backward {create_graph = true} end)
  end)
  it("backward of many elements needs a gradient", function()
    fails("one element", function() (w * w):backward() end)
    fails("gradient: expected a 2x2 f32 tensor", function() (w * w):backward(attune.ones {2}) end)
    w.grad = nil
    ;(w * w):backward(attune.full({2, 2}, 3))
    assert.same({{6, 6}, {6, 6}}, w.grad:tolist())
  end)
  it("integers have no gradient", function()
    fails("float tensor", function() attune.arange(3, {dtype = "i64"}):requires_grad() end)
  end)
  it("grad takes nil or a tensor like its own", function()
    fails("grad: expected nil or a 2x2 f32", function() w.grad = attune.ones {2} end)
    fails("requires_grad", function() attune.ones({2}).grad = attune.ones {2} end)
  end)
end)

describe("gradcheck", function()
  it("needs a float tensor, whose gradient it compares", function()
    local function first(x) return x or attune.ones {1} end
    for _, inputs in ipairs {{}, {attune.tensor({1}, {dtype = "i32"})}, {3}} do
      fails("inputs: expected at least one float tensor", function()
        attune.gradcheck(first, inputs)
      end)
    end
  end)

  it("tells a mismatch without an error", function()
    -- sign(x) is a step: its differences are 0, and exp's are not those of 2 exp.
    local core = require "attune.core"
    local wrong = require "attune.autograd.graph".operation {
      name = "wrong",
      forward = core._tensor_methods.exp,
      backward = function(_, dy) return dy * 2 end,
    }
    local ok, message, worst = attune.gradcheck(wrong, {attune.zeros {2}}, {bound = 1e-6})
    assert.is_false(ok)
    assert.truthy(message:find("input 1, element [1]", 1, true), message)
    assert.is_true(math.abs(worst - 1) < 1e-6)
  end)
  it("tells what backward raised", function()
    local op = require "attune.autograd".operation {
      name = "odd", forward = function(x) return x * 1 end,
      backward = function() return attune.ones {3} end,
    }
    local ok, message, worst = attune.gradcheck(op, {attune.ones {2}})
    assert.is_false(ok)
    assert.truthy(message:find("odd: expected backward to return a 2 f64 tensor", 1, true), message)
    assert.same(math.huge, worst)
    local function purpose() error "on purpose" end
    fails("on purpose", function() attune.gradcheck(purpose, {attune.ones {1}}) end)
  end)
  it("fails where a gradient is NaN", function()
    local ok, _, worst = attune.gradcheck(function(x) return (x * 0):sqrt() end, {attune.ones {2}})
    assert.is_false(ok)
    assert.is_true(worst ~= worst)
  end)
end)

describe("checkpoint", function()
  local autograd = require "attune.autograd"
  local function block(x, w)
    local h = attune.matmul(x, w):gelu()
    return h * attune.randn(h.shape), h:sum(1)
  end
  local function gradients_of(call)
    attune.set_seed(7)
    local x = attune.randn({4, 6}, {seed = 1}):requires_grad()
    local w = attune.randn({6, 5}, {seed = 2}):requires_grad()
    local inner = attune.randn({5}, {seed = 3}):requires_grad()
    local y, sums = call(function(a, b)
      local c, d = block(a, b)
      return c * inner, d
    end, x, w)
    local loss = (y * y):sum() + sums:sum()
    local kept = attune.graph_bytes(loss)
    attune.randn {3} -- other draws in between
    loss:backward()
    return {x.grad:tolist(), w.grad:tolist(), inner.grad:tolist()}, kept
  end
  it("gives the same gradients, also with random draws, and keeps less", function()
    local plain, kept = gradients_of(function(fn, ...) return fn(...) end)
    local again, less = gradients_of(autograd.checkpoint)
    assert.same(plain, again)
    assert.is_true(less < kept, ("%d of %d bytes"):format(less, kept))
  end)
  it("reaches parameters although no argument requires gradients", function()
    local w = attune.ones({2}):requires_grad()
    autograd.checkpoint(function(x, n) return (x * w * n):sum() end, attune.ones {2}, 3):backward()
    assert.same({3, 3}, w.grad:tolist())
  end)
  it("records again after an error in the function", function()
    local w = attune.ones({2}):requires_grad()
    fails("on purpose", function() autograd.checkpoint(function() error "on purpose" end, w) end)
    ;(w * 2):sum():backward()
    assert.same({2, 2}, w.grad:tolist())
  end)
end)

describe("an operation of the user", function()
  local operation = require "attune.autograd".operation
  local kept_dy
  local cube = operation {
    name = "cube",
    forward = function(x) return x * x * x end,
    keep = function(node, _, x) node:save(x) end,
    backward = function(node, dy)
      kept_dy = dy
      local x = node:saved()
      return dy * x * x * 3
    end,
  }
  it("has its own gradient, and may keep what it sees", function()
    gradients.check(cube, {normal(3, 2)})
    assert.same({3, 2}, kept_dy.shape)
    kept_dy:tolist()
  end)
  it("may return a wrong gradient: an error names the operation, and nothing breaks", function()
    local w = attune.ones({2}):requires_grad()
    for _, wrong in ipairs {attune.ones {3}, attune.ones({2}, {dtype = "f64"}), 5, {}} do
      local op = operation {
        name = "odd",
        forward = function(x) return x * 1 end,
        backward = function() return wrong end,
      }
      fails("odd: expected backward to return a 2 f32 tensor for argument 1", function()
        op(w):sum():backward()
      end)
    end
    fails("odd: expected forward to return a float tensor", function()
      operation {name = "odd", forward = function() end, backward = print}(w)
    end)
    w.grad = nil
    ;(w * 2):sum():backward()
    assert.same({2, 2}, w.grad:tolist())
  end)
  it("cannot yield, close what the engine needs, or walk its own graph again", function()
    local w = attune.full({2}, 2):requires_grad()
    local loss
    local op = operation {
      name = "hostile",
      forward = function(x) return x * 1 end,
      keep = function(node, _, x) node:save(x) end,
      backward = function(node, dy)
        fails("yield", coroutine.yield)
        fails("freed", function()
          loss:backward()
          loss:backward()
        end)
        local x = node:saved()
        x:close()
        dy:close()
        return attune.ones {2}
      end,
    }
    loss = (op(w) * w):sum()
    coroutine.wrap(function() pcall(loss.backward, loss) end)()
    w.grad = nil
    ;(w * w):sum():backward()
    assert.same({4, 4}, w.grad:tolist())
  end)
  it("is read once, from a plain table", function()
    fails("__index", function() operation(setmetatable({}, {__index = {name = "x"}})) end)
    fails("did you mean 'backward'", function() operation {name = "x", bakward = print} end)
    fails("backward: expected a function", function() operation {name = "x", forward = print} end)
  end)
end)

describe("user code that runs while a graph is walked", function()
  it("breaks nothing: finalizers that close, collect, record and walk", function()
    local w = attune.randn({8, 8}, {seed = 1}):requires_grad()
    local function step(x)
      local h = attune.matmul(x, w):rms_norm():silu()
      local q = h:view(1, 2, 4, 8)
      local o = attune.attention(q, q, q, {causal = true})
      return (o:softmax(-1) * o):sum()
    end
    local x = attune.randn({8, 8}, {seed = 2})
    step(x):backward()
    local expected = w.grad:tolist()
    collectgarbage("setpause", 0)
    local ran = 0
    for _ = 1, 60 do
      w.grad = nil
      local loss = step(x)
      for _ = 1, 20 do
        setmetatable({}, {__gc = function()
          ran = ran + 1
          local v = attune.ones({2}):requires_grad()
          pcall(function() (v * v):sum():backward() end)
          pcall(attune.no_grad, function() x:slice(1, 1, 1):close() end)
        end})
      end
      loss:backward()
      assert.same(expected, w.grad:tolist())
    end
    collectgarbage("setpause", 200)
    assert.is_true(ran > 0)
  end)
end)

describe("profile", function()
  it("tells wall time, time in the core, and calls by operation", function()
    local x = attune.randn({64, 64}, {seed = 1})
    local p = attune.profile(function()
      for _ = 1, 3 do attune.matmul(x, x):exp() end
    end)
    assert.same(3, p.operations.matmul.calls)
    assert.is_true(p.operations.unary.calls >= 3) -- finalizers of other tests may call, too
    local calls = 0
    for _, operation in pairs(p.operations) do calls = calls + operation.calls end
    assert.same(calls, p.calls)
    assert.is_true(p.core > 0 and p.core <= p.wall)
    assert.is_nil(attune.profile(function() end).operations.matmul)
    fails("on purpose", function() attune.profile(function() error "on purpose" end) end)
  end)
end)

describe("a training step", function()
  -- A layer of each kind, large enough for several tasks per operation.
  local function step()
    local function normal32(seed_of, ...)
      return attune.randn({...}, {seed = seed_of, std = 0.1}):requires_grad()
    end
    local table_of = normal32(1, 64, 96)
    local scale, q, up, down = normal32(2, 96), normal32(3, 96, 96), normal32(4, 384, 96),
      normal32(5, 96, 384)
    local ids = attune.uniform({4, 256}, {low = 0, high = 63, seed = 6}):to "i64"
    local x = layers.embedding(table_of, ids)
    local h = layers.linear(x:rms_norm(scale), q):view(4, 256, 6, 16):transpose(2, 3)
    local o = attune.attention(h, h, h, {causal = true}):transpose(2, 3):contiguous()
    x = x + o:view(4, 256, 96)
    x = x + layers.linear(layers.linear(x:layer_norm(scale), up):gelu(), down)
    local loss = layers.cross_entropy(attune.matmul(x, table_of:transpose(1, 2)), ids)
    local kept = attune.graph_bytes(loss)
    loss:backward()
    local list = {loss:item()}
    for _, t in ipairs {table_of, scale, q, up, down} do list[#list + 1] = t.grad:tolist() end
    return list, kept
  end

  it("has the same bits for any number of threads, and from run to run", function()
    local before = attune.threads(1)
    local alone = step()
    attune.threads(2)
    assert.same(alone, (step()))
    attune.threads(3)
    assert.same(alone, (step()))
    attune.threads(before)
  end)

  it("leaves nothing behind: memory stays as it was", function()
    local function bytes_after(steps)
      for _ = 1, steps do step() end
      collectgarbage()
      collectgarbage()
      return attune.memory().bytes
    end
    local before = bytes_after(1)
    assert.same(before, bytes_after(5))
  end)

  it("needs little more than graph_bytes says", function()
    collectgarbage()
    collectgarbage()
    local w = {}
    for i = 1, 12 do w[i] = attune.randn({256, 256}, {seed = i, std = 0.1}):requires_grad() end
    local x = attune.randn({4096, 256}, {seed = 99})
    local before = attune.memory().bytes
    attune.memory {reset_peak = true}
    local h = x
    for i = 1, 12 do
      local product = layers.linear(h, w[i])
      h = product:tanh()
      product:close() -- else it waits for the collector
    end
    local loss = h:sum()
    local kept = attune.graph_bytes(loss)
    h = nil -- luacheck: ignore
    loss:backward()
    local of_gradients = 12 * 256 * 256 * 4
    local above = attune.memory().peak - before - of_gradients
    assert.is_true(above <= 1.1 * kept, ("%d above, %d kept"):format(above, kept))
  end)
end)
