-- What tracing does with user code that misbehaves, and with code that says little about itself.
local attune = require "attune"
local expect = require "tests.support.expect"
local golden = require "tests.support.golden"

local fails, here = expect.fails, expect.here

local x = {
  attune.randn({1, 2, 8, 4}, {seed = 1}), attune.randn({1, 2, 8, 4}, {seed = 2}),
  attune.randn({1, 2, 8, 4}, {seed = 3}),
}
local function run(score) return attune.attention(x[1], x[2], x[3], {score = score}) end
local function run_mask(mask) return attune.attention(x[1], x[2], x[3], {mask = mask}) end

-- The function of a chunk, without debug information. names: its upvalues, in order.
local function stripped(source, ...)
  local chunk = load("local a, b = ...\n" .. source)
  local fn = load(string.dump(chunk(), true), "stripped", "b")
  for n, value in ipairs {...} do debug.setupvalue(fn, n, value) end
  return fn
end

local globals = debug.getregistry()[2] -- LUA_RIDX_GLOBALS
local environment = _ENV

-- Tracing works, and the table of globals is the same as before.
local function assert_intact()
  assert.is_true(rawequal(environment, _ENV))
  local function score(s) return s * math.pi end
  local o = run(score)
  assert.is_true(rawequal(environment, _ENV))
  assert.same(0, golden.difference(o, run(function(s) return s * 3.141592653589793 end)))
end

describe("functions without debug information", function()
  it("are traced as others are", function()
    local slope = attune.tensor {0.5, 0.25}
    local score = stripped("return function(s, at) return s - a[at.h] * (at.i - at.j):abs() end",
      slope)
    local expected = run(function(s, at) return s - slope[at.h] * (at.i - at.j):abs() end)
    assert.same(0, golden.difference(run(score), expected))
    local mask = stripped "return function(at) return at.i:ge(at.j) end"
    assert.same(0, golden.difference(run_mask(mask), run_mask(attune.masks.causal())))
    assert.same("mask", attune.program(mask).kind)
    assert.same("score", attune.program(stripped "return function(s) return s * 2 end").kind)
  end)

  it("are traced again when a global or an upvalue changes", function()
    globals.attune_test_factor = 2
    local score = stripped("return function(s) return s * attune_test_factor * a end", globals, 3)
    local before = run(score)
    globals.attune_test_factor = 5
    local after = run(score)
    globals.attune_test_factor = nil
    assert.same(0, golden.difference(before, run(function(s) return s * 2 * 3 end)))
    assert.same(0, golden.difference(after, run(function(s) return s * 5 * 3 end)))
  end)

  it("have errors that name the line of the call and no other", function()
    for _, case in ipairs {
      {"return function(s, at) return at.i == at.j end", "== between traced values"},
      {"return function(s, at) return s + nil end", "expected a number or a traced value, got nil"},
      {"return function(s, at) return at.i.x.y end", "unknown method 'x'"},
      {"return function(s, at) return s:foo() end", "unknown method 'foo'"},
      {"return function(s, at) local t = {}; return t.x.y end", "attempt to index a nil value"},
      {"return function(s, at) return math.exp(s) end", "write the method, as x:exp"},
      {"return function(s, at) end", "got nothing"},
      {"return function(s, at) if at.i:lt(3) then return s end return s * 2 end", "used nowhere"},
    } do
      local score = stripped(case[1], globals)
      local line = here(1)
      local message = fails(case[2], function() run(score) end)
      assert.is_nil(message:find("?:", 1, true), message)
      assert.same(1, select(2, message:gsub(":%d+:", "")), message)
      assert.truthy(line)
    end
  end)
end)

describe("errors inside the library's masks and scores", function()
  it("name the line of the user", function()
    local lengths = attune.tensor({3}, {dtype = "i32"})
    local prefix = attune.masks.prefix(lengths)
    lengths:close()
    local line
    local message = fails("expected an open tensor, got a closed one", function()
      line = here(1)
      local o = run_mask(prefix)
      return o
    end)
    assert.truthy(message:find(line, 1, true), message)
    local all = attune.masks.all(attune.masks.causal(), prefix)
    message = fails("expected an open tensor, got a closed one", function()
      line = here(1)
      local o = run_mask(all)
      return o
    end)
    assert.truthy(message:find(line, 1, true), message)
    local slopes = attune.ones {2}
    local alibi = attune.scores.alibi(slopes)
    slopes:close()
    message = fails("expected an open tensor, got a closed one", function()
      line = here(1)
      local o = run(alibi)
      return o
    end)
    assert.truthy(message:find(line, 1, true), message)
  end)

  it("name the line inside the user's function that calls them", function()
    local lengths = attune.tensor({3}, {dtype = "i32"})
    local prefix = attune.masks.prefix(lengths)
    lengths:close()
    local line = here(2)
    local function mask(at)
      local visible = prefix(at)
      return visible
    end
    local message = fails("expected an open tensor, got a closed one", function()
      run_mask(mask)
    end)
    assert.truthy(message:find(line, 1, true), message)
  end)
end)

describe("messages about what a function does", function()
  it("say that a score is a string, and show it", function()
    fails(here(1) .. 'score: expected the function to return .*a string, "s %* 2"', function()
      run(function() return "s * 2" end)
    end)
    fails('%+: expected a number or a traced value, got a string, "x"', function()
      run(function(s) return s + "x" end)
    end)
    fails("mask: expected the function to return a comparison.*got a string", function()
      run_mask(function() return "at.i >= at.j" end)
    end)
  end)

  it("say what to write in place of out[at.i] = s", function()
    local out = attune.zeros {8}
    for _, score in ipairs {
      function(s, at) out[at.i] = s end,
      function(s) out[1] = s end,
      function(s, at)
        pcall(function() out[at.i] = s end)
        return s
      end,
    } do
      fails("a write to a tensor, as in out%[at.i%] = s, cannot be traced.*write return s",
        function() run(score) end)
    end
  end)
end)

describe("the look at a function's source", function()
  local suspicious = require "attune.program.source_check".suspicious

  local function of(source, ...)
    local fn = load(source)(...)
    local lines = {}
    for n, line in ipairs(suspicious(fn)) do lines[n] = line[1] end
    return lines
  end

  it("looks at the function, not at the rest of its lines", function()
    assert.same({}, of [[
      local at = {i = 3}; local b = at.i == 3; return function(at) return at.i:lt(3) end]])
    assert.same({}, of "return function(at) return at.i:lt(3) end, ({i = 1}).i == 3")
    assert.same({}, of [[
      local function other(s) return s == 3 end return function(at) return at.i:lt(3) end]])
    assert.same({2}, of "local n = 3\nreturn function(at) return at.i == n end, n == 3")
  end)

  it("names a line once", function()
    assert.same({1}, of "return function(at) return at.i == 3 or at.j == 4 or at.i:lt(2) or 1 end")
    assert.same({1}, of [[
      local f = function(q) return q.i == 3 end return function(at) return f(at) end]])
    local done, fn = {}, load "return function(at) return at.i == 3 end"
    assert.same(1, #suspicious(fn(), done))
    assert.same(0, #suspicious(fn(), done))
  end)

  it("finds comparisons of expressions, over several lines", function()
    assert.same({1}, of "return function(s, at) return at.i % 2 == 0 and s or -s end")
    assert.same({1}, of "return function(s, at) return 0 == (at.i - at.j) // 2 and s or -s end")
    assert.same({3}, of "return function(s, at)\nreturn at.i\n== 3 and s or -s\nend")
    assert.same({2}, of "return function(s, at)\nreturn s:abs() ~= 3 and s or -s end")
    assert.same({1}, of "local t = {} return function(s, at) return t[at.i] == 3 and s or -s end")
    assert.same({1}, of "return function(q, p) return p.h == 1 and q or q * 2 end")
    assert.same({1}, of "return function(at) return (at.i:lt(3)) or at.j:lt(2) end")
  end)

  it("takes no comment, string or comparison of other values for one", function()
    assert.same({}, of "return function(s, at) --[[ at.i == 3\n at.j == 3 ]] return s end")
    assert.same({}, of 'return function(s, at) local t = "at.i == 3" return s + #t end')
    assert.same({}, of "return function(s, at) local t = [==[at.i == 3]==] return s + #t end")
    assert.same({}, of "return function(s, at) if at == nil or nil == s then s = 1 end end")
    assert.same({}, of "local n = 3 return function(s, at) return n == 3 and s or at.i * s end")
    assert.same({}, of 'return function(s, at) if type(s) == "number" then s = 1 end return s end')
    assert.same({}, of "local o = {s = 1} return function(s) return s * (o.s == 1 and 2 or 3) end")
    assert.same({}, of "return function(at, n) return at.i:lt(n or 3) end")
  end)
end)

describe("user code inside a trace", function()
  after_each(assert_intact)

  it("may raise any value", function()
    fails(here() .. "no luck", function() run(function() error "no luck" end) end)
    fails("a table as an error", function()
      local e = setmetatable({}, {__tostring = function() return "a table as an error" end})
      run(function() error(e) end)
    end)
    fails("nil", function() run(function() error() end) end)
    fails("error object is a table value", function() run(function() error {code = 1} end) end)
    fails("an error without a message", function()
      run(function() error(setmetatable({}, {__tostring = function() error "again" end})) end)
    end)
    fails(here(1) .. "attempt to index a nil value", function()
      run(function(s) return s + (nil).x end)
    end)
  end)

  it("cannot yield, in a coroutine or outside", function()
    local function score(s)
      coroutine.yield(1)
      return s
    end
    fails("a score or mask function cannot yield", function() run(score) end)
    local co = coroutine.create(function() run(score) end)
    local ok, message = coroutine.resume(co)
    assert.is_false(ok)
    assert.truthy(message:find "cannot yield", message)
    assert.same("dead", coroutine.status(co))
  end)

  it("may run coroutines of its own", function()
    local o = run(function(s)
      local co = coroutine.wrap(function(y)
        y = coroutine.yield(y * 2)
        return y + 1
      end)
      return co(co(s))
    end)
    assert.same(0, golden.difference(o, run(function(s) return s * 2 + 1 end)))
  end)

  it("may call itself without end, or nest deeply", function()
    local function endless(s) return endless(s) + 1 end
    fails("stack overflow", function() run(endless) end)
    local function deep(s, n) return n == 0 and s or deep(s, n - 1) + 1 end
    local o = run(function(s) return deep(s, 1000) end)
    expect.close(o, run(function(s) return s + 1000 end), 1e-3, "nested")
  end)

  it("may not compute a million operations", function()
    fails("score: the function computes more than 100000 operations", function()
      run(function(s, at)
        for n = 1, 1000000 do s = s + at.i * n end
        return s
      end)
    end)
    fails("more than 100000 operations", function()
      run_mask(function(at)
        local visible = at.i:ge(at.j)
        while true do visible = visible & at.i:ge(at.j) end
      end)
    end)
  end)

  it("may build long chains", function()
    local o = run(function(s)
      for _ = 1, 5000 do s = s * 1.0001 + 0.0001 end
      return s
    end)
    assert.is_true(golden.difference(o, o) == 0)
  end)

  it("may close what it reads, and the problem's own tensors", function()
    local t = attune.ones {8}
    fails("expected an open tensor, got a closed one", function()
      run(function(s, at)
        local y = s + t[at.i]
        t:close()
        return y
      end)
    end)
    local q, k, v = x[1]:to "f32" + 0, x[2] + 0, x[3] + 0
    fails("closed", function()
      attune.attention(q, k, v, {score = function(s)
        q:close()
        return s * 2
      end})
    end)
  end)

  it("may set and clear debug hooks", function()
    local count = 0
    local hook, mask, number = debug.gethook()
    run(function(s)
      debug.sethook(function() count = count + 1 end, "", 1)
      s = s * 2
      debug.sethook()
      return s
    end)
    debug.sethook(hook, mask, number)
    assert.is_true(count > 0)
    run(function(s)
      debug.sethook(function()
        debug.sethook()
        run(function(y) return y * 3 end)
      end, "", 1)
      return s * 2
    end)
    debug.sethook(hook, mask, number)
  end)

  it("may change globals, and its own environment", function()
    local function score(s)
      attune_test_factor = 3 -- luacheck: ignore
      return s * attune_test_factor -- luacheck: ignore
    end
    local o = run(score)
    assert.same(3, attune_test_factor) -- luacheck: ignore
    attune_test_factor = nil -- luacheck: ignore
    assert.same(0, golden.difference(o, run(function(s) return s * 3 end)))
    local names = {}
    run(load [[
      local names = ...
      return function(s)
        for name in pairs(_G) do names[name] = true end
        return s
      end]](names))
    assert.is_true(names.print and names.pairs)
    run(load "return function(s) _ENV = {} return s * 2 end"())
  end)

  it("cannot change what was recorded", function()
    fails("a traced value has no fields to set", function()
      run(function(s)
        s.op = "exp"
        return s
      end)
    end)
    local o = run(function(s)
      rawset(s, "op", "exp")
      rawset(s, 1, 3)
      return s * 2
    end)
    assert.same(0, golden.difference(o, run(function(s) return s * 2 end)))
    fails("cannot change a protected metatable", function()
      run(function(s) return setmetatable(s, {}) end)
    end)
  end)

  it("cannot change a program", function()
    local slope = attune.ones {2}
    local function score(s, at) return s * slope[at.h] end
    local program = attune.program(score)
    local before = run(program)
    assert.same({"score", slope}, {program.kind, program.tensors[1]})
    fails("a program has no fields to set", function() program.kind = "mask" end)
    program.tensors[1] = nil
    rawset(program, "handle", 3)
    rawset(program, "tensors", 3)
    assert.same(0, golden.difference(before, run(score)))
    assert.same(0, golden.difference(before, run(program)))
    slope:close() -- the program still has the memory
    assert.same(0, golden.difference(before, run(program)))
    fails("expected a function %(s, at%), got a table", function()
      run(setmetatable({}, getmetatable(program)))
    end)
  end)

  it("cannot use values of another trace", function()
    local kept
    run(function(s)
      kept = s
      return s
    end)
    fails("a traced value was kept and used after its function had returned", function()
      run(function(s) return s + kept end)
    end)
    fails("a traced value was kept", function() run(function() return kept end) end)
  end)

  it("is not broken by a finaliser that traces, raises or uses attention", function()
    local ran, ok = 0, nil
    local function inner(y) return y * 3 end
    local expected = run(inner)
    local o = run(function(s)
      setmetatable({}, {__gc = function()
        ran = ran + 1
        local fine, result = pcall(run, function(y) return y * 3 end)
        ok = fine and golden.difference(result, expected) == 0
        pcall(run, function(y) return y < 3 end)
      end})
      collectgarbage()
      collectgarbage()
      return s * 2
    end)
    assert.same(1, ran)
    assert.is_true(ok)
    assert.same(0, golden.difference(o, run(function(s) return s * 2 end)))
  end)

  it("is not broken by metamethods that run while it is traced", function()
    local calls = 0
    local settings = setmetatable({}, {__index = function(_, key)
      calls = calls + 1
      pcall(attune.attention, x[1], x[2], x[3], {mask = attune.masks.causal()})
      return key == "slope" and 0.5 or error "no such setting"
    end})
    fails("called inside another one's tracing", function()
      run(function(s) return s * settings.slope end)
    end)
    assert.same(1, calls)
    fails("no such setting", function() run(function(s)
      local plain = setmetatable({}, {__index = function() error "no such setting" end})
      return s * plain.x
    end) end)
  end)
end)

describe("a tensor of one element in a score", function()
  local q = attune.randn({2, 4, 9, 4}, {seed = 4, dtype = "f64"})
  local k = attune.randn({2, 2, 9, 4}, {seed = 5, dtype = "f64"})
  local v = attune.randn({2, 2, 9, 4}, {seed = 6, dtype = "f64"})
  local d = attune.randn({2, 4, 9, 4}, {seed = 7, dtype = "f64"})

  local function forms(t)
    return {
      function(s) return s * t end,
      function(s) return t * s end,
      function(s, at) return s - t * (at.i - at.j):abs() end,
      function(s, at) return (s / t):tanh() * t + at.i / (t + 2) end,
      function(s, at) return at.i:lt(at.j):where(t, s) end,
      function(s) return s:max(t) + (s ^ 2 + 1) ^ t + t - s end,
      function(s) return s + t end,
      function(_, at) return at.i:lt(at.j):where(0, t) * at.i end,
    }
  end

  local function tensor_of(value, shape, dtype)
    if not shape then return attune.tensor({value}, {dtype = dtype}):sum() end
    return attune.full(shape, value, {dtype = dtype})
  end

  it("has the results of its number, and the gradient that differences show", function()
    local value, step = 0.75, 1e-6
    for _, shape in ipairs {{1}, {1, 1, 1}, false} do
      local t = tensor_of(value, shape, "f64")
      for n, score in ipairs(forms(t)) do
        local number = forms(value)[n]
        local o, lse = attune.attention(q, k, v, {score = score, causal = true})
        local exact = attune.attention(q, k, v, {score = number, causal = true})
        expect.close(o, exact, 1e-12, "form " .. n)
        local _, _, _, tables = attune.attention_backward(
          d, q, k, v, o, lse, {score = score, causal = true}
        )
        local function loss(y)
          local out = attune.attention(q, k, v, {score = forms(y)[n], causal = true})
          return (out * d):sum():item()
        end
        local measured = (loss(value + step) - loss(value - step)) / (2 * step)
        local gradient = tables[t]
        assert.same(t.shape, gradient.shape)
        assert.near(measured, gradient:item(), 1e-6 * (1 + math.abs(measured)), "form " .. n)
      end
    end
  end)

  it("has the gradient of reference in tiled, and runs in decode and blis", function()
    local q32, k32, v32, d32 = q:to "f32", k:to "f32", v:to "f32", d:to "f32"
    for _, shape in ipairs {{1}, {1, 1}, false} do
      local t = tensor_of(0.75, shape, "f32")
      for n, score in ipairs(forms(t)) do
        local options = {score = score, engine = "reference"}
        local o, lse = attune.attention(q32, k32, v32, options)
        local _, _, _, exact = attune.attention_backward(d32, q32, k32, v32, o, lse, options)
        local expected = exact[t]:item()
        for _, engine in ipairs {"tiled", "blis", "decode"} do
          local y = attune.attention(q32, k32, v32, {score = score, engine = engine})
          expect.close(y, o, 1e-5, engine .. n)
        end
        options.engine = "tiled"
        local _, _, _, got = attune.attention_backward(d32, q32, k32, v32, o, lse, options)
        local bound = 1e-4 * (1 + math.abs(expected))
        assert.near(expected, got[t]:item(), bound, "form " .. n)
      end
    end
  end)

  it("may be an integer, in a mask and as part of an index", function()
    local n = attune.tensor({3}, {dtype = "i32"})
    local o = run_mask(function(at) return at.j:le(n) end)
    assert.same(0, golden.difference(o, run_mask(function(at) return at.j:le(3) end)))
    local t = attune.arange(12)
    o = run(function(s, at) return s + t[at.i + n] end)
    assert.same(0, golden.difference(o, run(function(s, at) return s + t[at.i + 3] end)))
  end)

  it("may be the whole result", function()
    local t = attune.tensor {3}
    assert.same(0, golden.difference(run(function() return t end), run(function() return 3 end)))
  end)

  it("is refused where it has more elements, with what to write", function()
    local many = attune.ones {8}
    for what, score in pairs {
      score = function() return many end,
      max = function(s) return s:max(many) end,
      where = function(s, at) return at.i:lt(3):where(s, many) end,
    } do
      fails(what .. ": expected a number or a traced value, got a tensor; read", function()
        run(score)
      end)
    end
    local t = attune.ones {8}
    fails(here(1) .. "%*: arithmetic of a whole tensor and .* read an element", function()
      run(function(s) return s * t end)
    end)
    fails(here(1) .. "%*: arithmetic of a whole tensor and a traced value", function()
      run(function(s) return t * s end)
    end)
  end)
end)
