--- User code that runs inside a call: metamethods of options, score and mask functions while they
--- are traced, finalizers. Whatever it closes, replaces or collects, the call ends with a result or
--- with an error. A crash ends the run. tests/fuzz/api tries the same at random.
local attune = require "attune"
local fails = require "tests.support.expect".fails

local function small_cache()
  local cache = attune.cache {batch = 1, kv_heads = 1, head_dim = 16, capacity = 64}
  local k = attune.randn({1, 1, 4, 16}, {seed = 1})
  return cache, k
end

-- Calls fn many times while garbage with finalizers that call `act` is collected at every
-- allocation. Returns how often fn succeeded and how often an error was raised.
local function with_finalizers(act, fn)
  local mode = collectgarbage "incremental"
  local pause, speed = collectgarbage("setpause", 0), collectgarbage("setstepmul", 10000)
  local succeeded, failed = 0, 0
  for _ = 1, 200 do
    for _ = 1, 4 do setmetatable({}, {__gc = function() pcall(act) end}) end
    if pcall(fn) then succeeded = succeeded + 1 else failed = failed + 1 end
  end
  collectgarbage("setpause", pause)
  collectgarbage("setstepmul", speed)
  collectgarbage(mode)
  return succeeded, failed
end

describe("options", function()
  it("are not read through metamethods", function()
    local cache, k = small_cache()
    local closing = setmetatable({}, {
      __index = function(_, name)
        cache:close()
        return name == "counts" and {4} or nil
      end,
    })
    fails("options: expected a plain table, got one whose metatable has __index", function()
      cache:append(k, k, closing)
    end)
    assert.same(0, cache.length)
    for _, fn in ipairs {
      function(options) attune.attention(k, k, k, options) end,
      function(options) attune.linear_attention(k, k, k, options) end,
      function(options) attune.rope(k, options) end,
      function(options) attune.position("rope", options) end,
      function(options) attune.zeros({2}, options) end,
      function(options) attune.cache(options) end,
      function(options) attune.pack({{1}}, options) end,
      function(options) attune.scores.alibi(attune.ones {2}, options) end,
    } do
      for _, event in ipairs {"__index", "__pairs"} do
        fails("options: expected a plain table, got one whose metatable has " .. event, function()
          fn(setmetatable({}, {[event] = function() end}))
        end)
      end
    end
    fails("shape: expected a plain table", function()
      attune.block_map(attune.masks.causal(), setmetatable({queries = 4}, {__index = {keys = 4}}))
    end)
  end)

  it("may have a metatable that answers for no field", function()
    local options = setmetatable({causal = true}, {__name = "mine", __len = error})
    local q = attune.randn({1, 1, 4, 4}, {seed = 1})
    local expected = attune.attention(q, q, q, {causal = true}):tolist()
    assert.same(expected, attune.attention(q, q, q, options):tolist())
  end)

  it("are read before a score is traced, which may replace them", function()
    local q = attune.randn({1, 2, 4, 16}, {seed = 1})
    local sinks = attune.randn({2}, {seed = 3})
    local expected = attune.attention(q, q, q, {sinks = sinks}):tolist()
    for try = 1, 30 do
      local options = {}
      for i = 1, try do options["x" .. i] = 1 end
      for i = 1, try do options["x" .. i] = nil end
      options.sinks = attune.randn({2}, {seed = 3})
      options.score = function(s)
        options.sinks = nil
        collectgarbage()
        collectgarbage()
        return s
      end
      assert.same(expected, attune.attention(q, q, q, options):tolist())
    end
  end)

  it("hold encodings that a mask function takes out and collects", function()
    local q = attune.randn({1, 2, 4, 16}, {seed = 1})
    local rope = attune.position("rope", {head_dim = 16})
    local expected = attune.attention(q, q, q, {rotate = rope, causal = true}):tolist()
    for try = 1, 30 do
      local options = {}
      for i = 1, try do options["x" .. i] = 1 end
      for i = 1, try do options["x" .. i] = nil end
      options.rotate = attune.position("rope", {head_dim = 16})
      options.mask = function(at)
        options.rotate = nil
        collectgarbage()
        collectgarbage()
        return at.i:ge(at.j)
      end
      assert.same(expected, attune.attention(q, q, q, options):tolist())
    end
  end)

  it("keep the score that was traced, whatever replaces it", function()
    local q = attune.randn({1, 1, 4, 4}, {seed = 1})
    local o, lse = attune.attention(q, q, q)
    local tables = {}
    for i = 1, 40 do tables[i] = attune.randn({8}, {seed = i}) end
    local options = {}
    options.score = function(s, at)
      options.score = function(t) return t end
      for i = 1, 40 do s = s + tables[i][at.i] end
      return s
    end
    fails("at most 16 tensors", function()
      attune.attention_backward(o, q, q, q, o, lse, options)
    end)
  end)
end)

describe("a score or mask function", function()
  local q = attune.randn({1, 1, 4, 16}, {seed = 2})

  it("may close the cache, tensors and encodings of its call, which is then an error", function()
    local cache, k = small_cache()
    cache:append(k, k)
    fails("cache: expected an open cache", function()
      cache:attend(k, {score = function(s) cache:close() return s end})
    end)
    local own = attune.randn({1, 1, 4, 16}, {seed = 2})
    fails("q: expected an open tensor", function()
      attune.attention(own, k, k, {score = function(s) own:close() return s end})
    end)
    local rope = attune.position("rope", {head_dim = 16})
    fails("rotate: expected an open positional encoding", function()
      attune.attention(k, k, k, {rotate = rope, mask = function(at)
        rope:close()
        return at.i:ge(at.j)
      end})
    end)
    local bias = attune.ones {4}
    fails("expected an open tensor", function()
      attune.attention(k, k, k, {score = function(s, at)
        s = s + bias[at.i]
        bias:close()
        return s
      end})
    end)
  end)

  it("cannot yield, and leaves nothing behind when it tries", function()
    local run = coroutine.wrap(function()
      return pcall(attune.attention, q, q, q, {score = function(s)
        coroutine.yield()
        return s
      end})
    end)
    local ok, message = run()
    assert.is_false(ok)
    assert.matches("cannot yield", message)
    assert.truthy(attune.attention(q, q, q, {score = function(s) return s * 2 end}))
  end)

  it("may raise any value", function()
    for _, value in ipairs {{}, 3, false, setmetatable({}, {__tostring = error}), print} do
      assert.is_false(pcall(attune.attention, q, q, q, {score = function() error(value) end}))
    end
    assert.is_false(pcall(attune.attention, q, q, q, {score = function() error() end}))
    assert.truthy(attune.attention(q, q, q, {score = function(s) return s * 3 end}))
  end)

  it("may call attention itself", function()
    local inner
    local outer = attune.attention(q, q, q, {score = function(s)
      inner = attune.attention(q, q, q)
      return s
    end})
    assert.same(inner:tolist(), outer:tolist())
  end)

  it("whose program was closed is traced again, or refused, but never left out", function()
    local function score(s, at) return s * 2 + at.j end
    local expected = attune.attention(q, q, q, {score = function(s, at) return s * 2 + at.j end})
    local handle = attune.program.handle(score, "score")
    getmetatable(handle).__gc(handle)
    local ok, o = pcall(attune.attention, q, q, q, {score = score})
    if ok then
      assert.same(expected:tolist(), o:tolist())
    else
      assert.matches("score: expected an open program", o)
    end
  end)

  it("whose list of tensors was changed has its own tensors still", function()
    local bias = attune.randn({4}, {seed = 4})
    local traced = attune.program(function(s, at) return s + bias[at.i] end)
    for i = 1, 20 do traced.tensors[1 + i] = attune.ones {4} end
    local o, lse = attune.attention(q, q, q, {score = traced})
    local _, _, _, gradients = attune.attention_backward(o, q, q, q, o, lse, {score = traced})
    local count = 0
    for tensor in pairs(gradients) do
      assert.is_true(rawequal(tensor, bias))
      count = count + 1
    end
    assert.same(1, count)
  end)
end)

describe("a finalizer", function()
  it("cannot close a handle while a call uses it", function()
    local q = attune.randn({1, 2, 64, 64}, {seed = 1})
    local expected = attune.attention(q, q, q):tolist()
    local closed, message
    collectgarbage()
    collectgarbage "stop"
    setmetatable({}, {__gc = function() closed, message = pcall(q.close, q) end})
    attune.zeros {1 << 20} -- freed when the call runs out of memory
    attune.memory {limit = attune.memory().bytes + 4096}
    local ok, o = pcall(attune.attention, q, q, q)
    attune.memory {limit = 0}
    collectgarbage "restart"
    assert.is_true(ok, o)
    assert.same(expected, o:tolist())
    assert.is_false(closed)
    assert.matches("tensor: expected a tensor that is not in use", message)
    q:close()
  end)

  it("that closes an argument during a call never breaks it", function()
    local q, cache, rope, state, k
    local function fresh()
      q = attune.randn({1, 1, 2, 16}, {seed = 1})
      cache, k = small_cache()
      rope = attune.position("rope", {head_dim = 16})
      state = attune.linear_state {kv_heads = 1, head_dim = 16, features = "elu"}
    end
    fresh()
    local act = function()
      q:close()
      cache:close()
      rope:close()
      state:close()
    end
    local calls = {
      function() return attune.attention(q, q, q, {rotate = rope, lengths = {1, 1}}) end,
      function() return attune.attention(q, q, q, {rotate = rope, positions = {3, 4}}) end,
      function() return cache:append(k, k, {rotate = rope, counts = {3}}) end,
      function() return cache:attend(q, {rotate = rope}) end,
      function() return cache.lengths end,
      function() return tostring(cache) .. tostring(q) .. tostring(rope) .. tostring(state) end,
      function() return q:tolist() end,
      function() return state:append(k, k):attend(k:slice(3, 1, 1)) end,
      function() return rope:rotate(q, {1, 2}), rope.inv_freq, rope:parameters() end,
      function() return attune.linear_attention(q, q, q, {features = "elu"}) end,
      function() return q + q, q:sum(), q:view(32), q[1], q:to "f64", #q, q.shape end,
    }
    local any = 0
    for _, call in ipairs(calls) do
      local succeeded, failed = with_finalizers(act, function()
        fresh()
        return call()
      end)
      assert.same(200, succeeded + failed)
      any = any + succeeded
    end
    assert.is_true(any > 0)
  end)

  it("that changes lists while they are read never breaks the call", function()
    local list, rows, names = {}, {}, {}
    local function fresh()
      list, rows, names = {2, 2}, {{2, 2}}, {a = attune.ones {4}, b = attune.ones {2}}
    end
    local act = function()
      for i = 3, 1000 do list[i] = 1 end
      for i = 3, 1000 do rows[1][i] = 1 end
      names.a, names.b = nil, nil
      for i = 1, 100 do names["c" .. i] = attune.ones {1} end
      collectgarbage "step"
    end
    local q = attune.randn({1, 1, 4, 4}, {seed = 1})
    local path = os.tmpname()
    for _, call in ipairs {
      function() return attune.attention(q, q, q, {lengths = list}) end,
      function() return attune.attention(q, q, q, {lengths = rows}) end,
      function() return attune.attention(q, q, q, {positions = list}) end,
      function() return attune.tensor(rows) end,
      function() return attune.zeros(list) end,
      function() return assert(attune.save(path, names)) end,
      function() return attune.position("rope", {head_dim = 8, scaling = {
        type = "longrope", factor = 2, original = 8, short = list, long = list,
      }}) end,
    } do
      local succeeded, failed = with_finalizers(act, function()
        fresh()
        return call()
      end)
      assert.same(200, succeeded + failed)
    end
    os.remove(path)
  end)
end)

describe("saving", function()
  it("reads the table raw, and keeps its tensors until they are written", function()
    local path = os.tmpname()
    local t = attune.ones {100000}
    local tensors = setmetatable({a = t}, {
      __index = function()
        t:close()
        collectgarbage()
        return attune.ones {4}
      end,
    })
    assert.is_true(attune.save(path, tensors))
    assert.same({100000}, attune.load(path).a.shape)
    os.remove(path)
  end)

  it("refuses zero bytes in names, metadata and paths", function()
    local t = attune.ones {4}
    fails("zero bytes", function() attune.save("x\0y", {a = t}) end)
    fails("zero bytes", function() attune.load "x\0y" end)
    fails("zero bytes", function() attune.save("unused", {["a\0b"] = t}) end)
    fails("zero bytes", function() attune.save("unused", {a = t}, {["k\0"] = "v"}) end)
    fails("k: expected a text without zero bytes", function()
      attune.save("unused", {a = t}, {k = "v\0"})
    end)
    fails("dtype: .* zero bytes", function() t:to "f32\0" end)
    fails("unknown option", function() attune.zeros({2}, {["dtype\0"] = "f32"}) end)
    assert.is_nil(io.open "unused")
  end)
end)

describe("sizes near 2^62", function()
  it("are refused at once", function()
    fails("shape", function() attune.tensor({1, 2, 3, 4}, {shape = {4, (1 << 62) + 1}}) end)
    fails("shape", function() attune.zeros {1 << 62, 4} end)
    fails("shape", function() attune.zeros {math.maxinteger} end)
    fails("capacity", function() attune.pack({{1, 2}, {3}}, {capacity = 1 << 40}) end)
    fails("capacity", function() attune.pack({{1, 2}, {3}}, {capacity = 1 << 62}) end)
    fails("capacity", function() attune.pack({{1, 2}, {3}}, {capacity = math.maxinteger}) end)
    fails("capacity", function() attune.pack({{1, 2}, {3}}, {capacity = 1e300}) end)
    fails("last", function() attune.arange(0, 1e300) end)
  end)
end)

describe("a metamethod that is called by hand with one argument too many", function()
  it("ignores it", function()
    local metatable = debug.getmetatable(attune.zeros {1})
    local recorded = attune.ones({2}):requires_grad()
    local t = attune.zeros {2}
    metatable.__newindex(t, 1, recorded[1], "more")
    assert.same({1, 0}, t:tolist())
    assert.same(1, metatable.__index(recorded, 1, "more"):item())
  end)
end)
