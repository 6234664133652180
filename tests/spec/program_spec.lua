local attune = require "attune"
local expect = require "tests.support.expect"
local golden = require "tests.support.golden"
local plain = require "tests.support.plain"
local random_programs = require "tests.support.random_programs"

local fails = expect.fails

local relative = expect.relative_difference

local here = expect.here

-- The score functions that the golden files name.
local scores = {
  relative_bias = function(t)
    local reach = (t.table.shape[2] - 1) // 2
    return function(s, at)
      return s + t.table[at.h][(at.j - at.i):clamp(-reach, reach) + reach + 1]
    end, "table"
  end,
  learned_slope = function(t)
    return function(s, at) return s - t.slope[at.h] * (at.i - at.j) end, "slope"
  end,
  key_bias = function(t) return function(s, at) return s + t.bias[at.b][at.j] end, "bias" end,
  gate = function(t) return function(s, at) return s * t.gate[at.h][at.i]:sigmoid() end, "gate" end,
  capped_outer = function(t)
    return function(s, at)
      return ((s + t.left[at.h][at.i] * t.right[at.h][at.j]) / 12):tanh() * 12
    end, "left", "right"
  end,
}

describe("golden scores", function()
  for _, name in ipairs(golden.files "attention") do
    local case, t = golden.load("attention/" .. name)
    local p = case.params
    if p.score then
      it(name, function()
        local made = table.pack(scores[p.score](t))
        local options = {
          causal = p.causal or nil, window = p.window, scale = p.scale, lengths = p.lengths,
          score = made[1],
        }
        for _, engine in ipairs {"reference", "blis", "tiled"} do
          options.engine = engine
          local o, lse = attune.attention(t.q, t.k, t.v, options)
          expect.close(o, t.o, case.bounds.o, engine .. " o")
          expect.close(lse, t.lse, case.bounds.lse, engine .. " lse")
          if engine ~= "blis" then
            local dq, dk, dv, dtables = attune.attention_backward(
              t["do"], t.q, t.k, t.v, o, lse, options
            )
            for gradient, d in pairs {dq = dq, dk = dk, dv = dv} do
              expect.close(d, t[gradient], case.bounds[gradient], engine .. gradient)
            end
            for n = 2, made.n do
              local d = "d" .. made[n]
              expect.close(dtables[t[made[n]]], t[d], case.bounds[d], engine .. d)
            end
          end
        end
      end)
    end
  end
end)

describe("golden biases as programs", function()
  for _, name in ipairs {"alibi_mpt", "alibi_bloom", "t5_encoder", "t5_decoder"} do
    it(name, function()
      local case, t = golden.load("position/" .. name .. ".safetensors")
      local p = case.params
      local pe = t.table
        and attune.position("t5", {
          heads = t.table.shape[2], table = t.table, max_distance = p.max_distance,
          bidirectional = p.bidirectional,
        })
        or attune.position("alibi", {heads = t.q.shape[2], max_bias = p.max_bias})
      for _, engine in ipairs {"reference", "blis", "tiled"} do
        local o = attune.attention(t.q, t.k, t.v, {
          causal = p.causal or nil, scale = p.scale, score = pe.score, engine = engine,
        })
        expect.close(o, t.o, case.bounds.o, engine)
      end
      -- The bias itself: the scores of q = 0.
      local heads, tokens = t.bias.shape[1], t.bias.shape[2]
      local q = attune.zeros {1, heads, tokens, 2}
      if t.table then
        local w = attune.attention_weights(q, q, {score = pe.score}):tolist()[1]
        local bias = t.bias:tolist()
        for h = 1, heads do
          for i = 1, tokens do
            for j = 1, tokens do
              local expected = math.exp(bias[h][i][j] - bias[h][i][1])
              if expected > 0 then
                assert.is_true(math.abs(w[h][i][j] / w[h][i][1] / expected - 1) < 1e-5)
              end
            end
          end
        end
      end
    end)
  end
end)

local B, H, K, S, D = 2, 2, 1, 10, 4
local q = attune.randn({B, H, S, D}, {seed = 1, dtype = "f64"})
local k = attune.randn({B, K, S, D}, {seed = 2, dtype = "f64"})
local v = attune.randn({B, K, S, D}, {seed = 3, dtype = "f64"})
local lists = {
  vector = attune.randn({9}, {seed = 4}):tolist(),
  grid = attune.randn({3, 7}, {seed = 5}):tolist(),
  ids = {3, 1, 4, 1, 5, 9, 2, 6, 5},
}
local tensors = {
  vector = attune.tensor(lists.vector),
  grid = attune.tensor(lists.grid),
  ids = attune.tensor(lists.ids, {dtype = "i32"}),
}
lists.vector, lists.grid = tensors.vector:tolist(), tensors.grid:tolist()
local problem = {
  q = q:tolist(),
  k = k:tolist(),
  v = v:tolist(),
  B = B,
  H = H,
  K = K,
  Sq = S,
  Sk = S,
  D = D,
  scale = 0.5,
}

describe("random programs", function()
  it("give 800 scores the values that plain Lua computes", function()
    for seed = 1, 800 do
      local body = random_programs.score(_G.test_seed * 100000 + seed, false)
      local traced = random_programs.compile(body, "s, at", tensors)
      local direct = random_programs.compile(body, "s, at", lists)
      local expected = attune.tensor(plain.with(plain.attention, problem, direct), {dtype = "f64"})
      local o = attune.attention(q, k, v, {scale = 0.5, score = traced})
      local off = golden.difference(o, expected)
      assert.is_true(off < 1e-9, ("%s is off by %g"):format(body, off))
    end
  end)

  it("give 400 masks the outputs that plain Lua computes, in every engine", function()
    for seed = 1, 400 do
      local body = random_programs.mask(_G.test_seed * 100000 + seed)
      local traced = random_programs.compile(body, "at", tensors)
      local direct = random_programs.compile(body, "at", lists)
      local expected = plain.with(plain.attention, problem, nil, direct)
      for _, engine in ipairs {"reference", "tiled", "blis", "decode"} do
        local o = engine == "reference" and attune.attention(q, k, v, {scale = 0.5, mask = traced})
          or attune.attention(q:to "f32", k:to "f32", v:to "f32", {
            scale = 0.5, mask = traced, engine = engine,
          })
        local off = golden.difference(o:to "f64", attune.tensor(expected, {dtype = "f64"}))
        assert.is_true(
          off < (engine == "reference" and 1e-9 or 1e-5),
          ("%s, %s is off by %g"):format(engine, body, off)
        )
      end
    end
  end)

  it("give 300 smooth scores and their gradients the same values in tiled as "
    .. "in reference", function()
    local q32 = q:to "f32"
    local k32 = k:to "f32"
    local v32 = v:to "f32"
    local d = attune.randn({B, H, S, D}, {seed = 6, dtype = "f64"})
    for seed = 1, 300 do
      local body = random_programs.score(_G.test_seed * 100000 + 5000 + seed, true)
      local score = random_programs.compile(body, "s, at", tensors)
      local options = {scale = 0.5, score = score, causal = seed % 2 == 0}
      local o, lse = attune.attention(q, k, v, options)
      local expected = {attune.attention_backward(d, q, k, v, o, lse, options)}
      local o32, lse32 = attune.attention(q32, k32, v32, options)
      assert.is_true(relative(o32, o) < 2e-4, body)
      local got = {attune.attention_backward(d:to "f32", q32, k32, v32, o32, lse32, options)}
      for n = 1, 3 do
        assert.is_true(relative(got[n], expected[n]) < 1e-3, ("%s: gradient %d"):format(body, n))
      end
      for tensor, gradient in pairs(expected[4]) do
        assert.is_true(relative(got[4][tensor], gradient) < 1e-3, body .. ": a table's gradient")
      end
    end
  end)

  it("give 150 smooth scores the gradients that finite differences show", function()
    local d = attune.randn({B, H, S, D}, {seed = 7, dtype = "f64"})
    local step = 1e-5
    for seed = 1, 150 do
      local body = random_programs.score(_G.test_seed * 100000 + 9000 + seed, true)
      local vector = tensors.vector:to "f64"
      local function loss(x, w)
        local score = random_programs.compile(body, "s, at", {
          vector = w, grid = tensors.grid, ids = tensors.ids,
        })
        return (attune.attention(x, k, v, {scale = 0.5, score = score}) * d):sum():item()
      end
      local score = random_programs.compile(body, "s, at", {
        vector = vector, grid = tensors.grid, ids = tensors.ids,
      })
      local o, lse = attune.attention(q, k, v, {scale = 0.5, score = score})
      local dq, _, _, tables = attune.attention_backward(d, q, k, v, o, lse, {
        scale = 0.5, score = score,
      })
      local direction = attune.randn({B, H, S, D}, {seed = seed, dtype = "f64"})
      local measured = (
        loss(q + direction * step, vector) - loss(q - direction * step, vector)
      ) / (2 * step)
      local said = (dq * direction):sum():item()
      assert.is_true(
        math.abs(measured - said) < 1e-4 * (1 + math.abs(said)),
        ("%s: %g by differences, %g by gradient"):format(body, measured, said)
      )
      if tables[vector] then
        local table_direction = attune.randn({9}, {seed = seed + 1, dtype = "f64"})
        measured = (
          loss(q, vector + table_direction * step) - loss(q, vector - table_direction * step)
        ) / (2 * step)
        said = (tables[vector] * table_direction):sum():item()
        assert.is_true(
          math.abs(measured - said) < 1e-4 * (1 + math.abs(said)),
          ("%s, table: %g by differences, %g by gradient"):format(body, measured, said)
        )
      end
    end
  end)
end)

describe("a bias with one value per pair", function()
  it("has the gradient of reference, shared by heads or not, and for any "
    .. "number of threads", function()
    local tokens = 200
    local x = {}
    for n = 1, 4 do x[n] = attune.randn({2, 4, tokens, 8}, {seed = n}) end
    local shared = attune.randn({tokens, tokens + 3}, {seed = 5})
    local own = attune.randn({2, 4, tokens, tokens}, {seed = 6})
    for _, score in ipairs {
      function(s, at) return s + shared[at.i][at.j + 3] end,
      function(s, at) return s * 0.5 + own[at.b][at.h][at.i][at.j] * s end,
    } do
      local options = {causal = true, score = score, engine = "tiled"}
      local o, lse = attune.attention(x[1], x[2], x[3], options)
      local before = attune.threads()
      local _, _, _, one = attune.attention_backward(x[4], x[1], x[2], x[3], o, lse, options)
      attune.threads(before == 1 and 2 or 1)
      local _, _, _, two = attune.attention_backward(x[4], x[1], x[2], x[3], o, lse, options)
      attune.threads(before)
      options.engine = "reference"
      local _, _, _, exact = attune.attention_backward(x[4], x[1], x[2], x[3], o, lse, options)
      for tensor, gradient in pairs(exact) do
        assert.is_true(relative(one[tensor], gradient) < 1e-5)
        assert.same(0, golden.difference(one[tensor], two[tensor]))
      end
    end
  end)
end)

describe("block maps", function()
  it("names the line of the caller when a mask cannot be traced", function()
    local line = here(2)
    local ok, message = pcall(function()
      local map = attune.block_map(math.sin, {queries = 64})
      return map
    end)
    assert.is_false(ok)
    assert.truthy(message:find(line, 1, true), message)
  end)

  it("count the same blocks as a loop over all pairs", function()
    for seed = 1, 60 do
      local body = random_programs.mask(_G.test_seed * 100000 + 20000 + seed)
      local traced = random_programs.compile(body, "at", tensors)
      local direct = random_programs.compile(body, "at", lists)
      local Sq, Sk, heads = 70 + seed, 150, 2
      local map = attune.block_map(traced, {heads = heads, queries = Sq, keys = Sk})
      local visible, tiles = 0, {}
      plain.with(function()
        for h = 1, heads do
          for row = 0, Sq - 1 do
            for j = 0, Sk - 1 do
              local tile = ((h - 1) * 100 + row // 64) * 100 + j // 64
              tiles[tile] = tiles[tile] or {0, 0}
              tiles[tile][2] = tiles[tile][2] + 1
              if direct {b = 1, h = h, kv = h, i = row + Sk - Sq + 1, j = j + 1} then
                visible = visible + 1
                tiles[tile][1] = tiles[tile][1] + 1
              end
            end
          end
        end
      end)
      assert.is_true(math.abs(map.density - visible / (heads * Sq * Sk)) < 1e-12, body)
      local blocks = {empty = 0, partial = 0, full = 0}
      for _, tile in pairs(tiles) do
        local kind = tile[1] == 0 and "empty" or tile[1] == tile[2] and "full" or "partial"
        blocks[kind] = blocks[kind] + 1
      end
      for kind, n in pairs(blocks) do
        assert.same(n, map.blocks[kind] * heads // map.heads, body .. " " .. kind)
      end
    end
  end)

  it("can be drawn as text, and refuse wrong arguments", function()
    local text = attune.block_map(attune.masks.causal(), {queries = 256}):draw()
    assert.same("▒···\n█▒··\n██▒·\n███▒\n", text)
    fails("head: expected from 1 to 1, got 2", function()
      attune.block_map(attune.masks.causal(), {queries = 64}):draw(2)
    end)
    fails("program_spec.lua:%d+: mask: expected an index in range of the tensor %[3%], from "
      .. "1, got %[4%]", function()
      local map = attune.block_map(attune.masks.documents {1, 1, 2}, {queries = 9})
      return map
    end)
    local t = attune.ones {3}
    assert.has_no.errors(function()
      attune.block_map(function(at) return t[at.i]:eq(1) end, {queries = 3})
    end)
    fails("program_spec.lua:%d+: heads: expected a multiple of kv_heads, 2, got 3", function()
      local map = attune.block_map(attune.masks.causal(), {queries = 64, heads = 3, kv_heads = 2})
      return map
    end)
    -- Refused before anything is computed.
    local before = attune.memory {reset_peak = true}.bytes
    fails("out of memory", function()
      attune.block_map(attune.masks.causal(), {queries = 1 << 30})
    end)
    assert.is_true(attune.memory().peak - before < 1e6)
    fails("unknown field 'querys' of shape; did you mean 'queries'", function()
      attune.block_map(attune.masks.causal(), {querys = 64})
    end)
  end)
end)

describe("tracing", function()
  local x = {
    attune.randn({1, 2, 8, 4}, {seed = 1}), attune.randn({1, 2, 8, 4}, {seed = 2}),
    attune.randn({1, 2, 8, 4}, {seed = 3}),
  }
  local function run(score) return attune.attention(x[1], x[2], x[3], {score = score}) end

  it("happens once per function", function()
    local count = 0
    local function score(s)
      count = count + 1
      return s * 2
    end
    for _ = 1, 5 do run(score) end
    assert.same(1, count)
  end)

  it("happens again when an upvalue or a global of the function, or of one it "
    .. "calls, changes", function()
    local factor, count = 2, 0
    local function inner(s) return s * factor end
    local function score(s)
      count = count + 1
      return inner(s)
    end
    local before = run(score)
    factor = 3
    local after = run(score)
    assert.same(2, count)
    expect.differ(before, after, 1e-3)
    assert.same(0, golden.difference(after, run(function(s) return s * 3 end)))
    _G.attune_test_factor = 1.5
    local function with_global(s) return s * _G.attune_test_factor end
    local function by_name(s) return s * attune_test_factor end -- luacheck: ignore
    local first, second = run(with_global), run(by_name)
    _G.attune_test_factor = 0.5
    expect.differ(first, run(with_global), 1e-3)
    expect.differ(second, run(by_name), 1e-3)
    _G.attune_test_factor = nil
  end)

  it("reports what cannot be traced, the line, and what to write instead", function()
    fails(here(1) .. "== between traced values cannot be traced; write x:eq", function()
      run(function(s, at) return at.i == at.j and s or s * 2 end)
    end)
    fails("a comparison is used nowhere in the result.*write c:where", function()
      run(function(s, at)
        if at.i:lt(3) then return s end
        return s * 2
      end)
    end)
    fails("a comparison is used nowhere", function()
      run(function(s, at) return at.i:lt(3) and s or -s end)
    end)
    fails("cannot be traced; write .*x:max", function()
      run(function(s) return math.max(s, 0) end)
    end)
    fails("math.exp takes numbers only; write the method, as x:exp", function()
      run(function(s) return math.exp(s) end)
    end)
    fails("a comparison is no number; write c:where%(1, 0%)", function()
      run(function(s, at) return s + at.i:lt(3) end)
    end)
    fails("& joins comparisons, got a traced value; write x:ne%(0%)", function()
      run(function(s) return s & 1 end)
    end)
    fails("unknown method 'tan' of a traced value; did you mean 'tanh'", function()
      run(function(s) return s:tan() end)
    end)
    fails("unknown field 'k' of at", function() run(function(s, at) return s + at.k end) end)
    fails("expected the function to return a number.*got nothing", function()
      run(function() end)
    end)
    fails("expected the function to return a number.*got a comparison", function()
      run(function(_, at) return at.i:lt(3) end)
    end)
    fails("score: expected the function to return a number.*got a string, \"x\"", function()
      run(function() return "x" end)
    end)
    fails("mask: expected the function to return a comparison.*got a number", function()
      attune.attention(x[1], x[2], x[3], {mask = function(at) return at.i end})
    end)
    fails("got false: == and ~= with a number.*write x:eq", function()
      attune.attention(x[1], x[2], x[3], {mask = function(at) return at.i == 3 end})
    end)
    fails("score: expected a function %(s, at%)", function() run(3) end)
    fails("< between values", function() run(function(s) return s < 3 end) end)
    fails("cannot be indexed", function()
      local t = attune.ones {4}
      run(function(s, at) return s + t[at.h][at.i] end)
    end)
    fails("has 2 axes and was read with 1", function()
      local t = attune.ones {4, 4}
      run(function(s, at) return s + t[at.h] end)
    end)
    fails("expected an integer, got a fraction", function()
      local t = attune.ones {4}
      run(function(s, at) return s + t[at.i / 2] end)
    end)
    fails("expected from 1 to 4 on axis 2 of the tensor, got 5", function()
      local t = attune.ones {4, 4}
      run(function(s, at) return s + t[at.h][5] end)
    end)
  end)

  it("reports tensors in arithmetic, loops, C functions, whole chunks and errors "
    .. "inside pcall", function()
    local t = attune.ones {8}
    fails("got a tensor; read an element, table%[at.h%]", function()
      run(function(s) return s + t end)
    end)
    fails("arithmetic of a whole tensor and a traced value", function()
      run(function(s) return t * s end)
    end)
    fails("make it a tensor", function()
      local list = {1, 2}
      run(function(s, at) return s * list[at.h] end)
    end)
    fails("a loop cannot run to a traced value", function()
      run(function(s, at)
        for _ = 1, at.i do s = s * 2 end
        return s
      end)
    end)
    fails("format takes numbers only", function()
      run(function(s, at) return s + ("%d"):format(at.i) end)
    end)
    fails("expected a Lua function, got one in C", function() run(math.exp) end)
    fails("chunk:2: unknown method 'foo'", function()
      run(load("local s = ...\nreturn s:foo()", "=chunk"))
    end)
    fails("< between values", function()
      run(function(s)
        pcall(function() return s < 3 end)
        return s
      end)
    end)
    fails("called inside another one's tracing", function()
      run(function(s)
        run(function(y) return y * 2 end)
        return s
      end)
    end)
    local message = fails("tensor and a traced value", function()
      attune.program(function(s) return t * s end)
    end)
    assert.same(1, select(2, message:gsub("program_spec.lua", "")))
  end)

  it("refuses traced values that are used after the trace", function()
    local kept
    local function score(s)
      kept = s
      return s * 2
    end
    run(score)
    fails("used after its function had returned", function() return kept + 1 end)
    fails("used after its function had returned", function() return kept.foo end)
    assert.has_no.errors(function() run(score) end)
  end)

  it("notices a closed tensor, a renamed field, and a changed global of a "
    .. "called function", function()
    local t, options = attune.ones {8}, {a = 2}
    local function reads(s, at) return s + t[at.i] end
    run(reads)
    t:close()
    fails("open tensor, got a closed one", function() run(reads) end)
    local function renamed(s) return s * (options.a or 5) end
    local before = run(renamed)
    options.a, options.b = nil, 2
    expect.differ(before, run(renamed), 1e-3)
    _G.attune_test_factor = 2
    local function inner(s) return s * attune_test_factor end -- luacheck: ignore
    local function outer(s) return inner(s) end
    before = run(outer)
    _G.attune_test_factor = 5
    expect.differ(before, run(outer), 1e-3)
    _G.attune_test_factor = nil
  end)

  it("finds comparisons that Lua itself answers", function()
    local suspicious = require "attune.program.source_check".suspicious
    local function equals(at) return at.i == 3 end
    local function joins(at) return at.i:lt(3) or at.j:lt(2) end
    local function fine(at, n) return at.i:lt(n or 3) | at.j:eq(2) end
    assert.truthy(suspicious(equals)[1][3]:find "x:eq")
    assert.truthy(suspicious(joins)[1][3]:find "a | b")
    assert.same({}, suspicious(fine))
    assert.same(2, suspicious(load "local at = ...\nreturn at.i == 3")[1][1])
  end)

  it("names the user's line in joined masks and in reads by library functions", function()
    local causal, all, any = attune.masks.causal, attune.masks.all, attune.masks.any
    local function mask(m) return attune.attention(x[1], x[2], x[3], {mask = m}) end
    local function at_line(where, pattern, fn)
      fails(where .. pattern, function() mask(all(causal(), fn)) end)
    end
    at_line(here(), "== between traced values", function(at) return at.i == at.j end)
    at_line(here(), "& joins comparisons", function(at) return at.i & 1 end)
    at_line(here(1), "mask: a comparison is used nowhere", function(at)
      if at.i:lt(3) then return at.j:lt(2) end
      return at.i:eq(1)
    end)
    at_line(here(), "mask: expected the function to return a comparison.*got false", function(at)
      return not at.i:lt(3)
    end)
    at_line(
      here(), "mask: expected the function to return a comparison.*got nothing", function() end
    )
    at_line(here(), "mask: expected the function to return a comparison.*got a number", function(at)
      return at.i
    end)
    at_line(here(), "mask: expected the function to return a comparison.*got 3", function()
      return 3
    end)
    at_line(here(), "unknown field 'k' of at", function(at) return at.k:lt(3) end)
    fails(here(1) .. "mask: .*got nothing", function()
      mask(any(causal(), all(function() end, causal())))
    end)
    fails(here(1) .. "all: expected at least one mask", function()
      local m = all()
      return m
    end)
    fails(here(1) .. "any: expected mask functions, got a number as number 2", function()
      local m = any(causal(), 3)
      return m
    end)
    local t = attune.ones {3}
    fails("of head 1 %(line " .. here(1):match ":(%d+)" .. "%)", function()
      mask(all(causal(), function(at) return t[at.i]:eq(t[at.j]) end))
    end)
    fails("of head 1$", function() mask(all(causal(), attune.masks.documents {1, 2, 3})) end)
    fails("of head 2$", function() run(attune.position("alibi", {heads = 1}).score) end)
  end)

  it("notices changed globals of joined masks, and treats NaN as unchanged", function()
    _G.attune_test_factor = 2
    local m = attune.masks.all(function(at)
      return (at.i - at.j):lt(attune_test_factor) -- luacheck: ignore
    end)
    local before = attune.block_map(m, {queries = 8}).density
    _G.attune_test_factor = 5
    assert.is_true(attune.block_map(m, {queries = 8}).density > before)
    _G.attune_test_factor = nil
    local count, nan = 0, {0 / 0, math.huge}
    local function score(s)
      count = count + 1
      return s * (nan[1] == 1 and 2 or 3)
    end
    for _ = 1, 3 do run(score) end
    assert.same(1, count)
    nan[1] = 1
    run(score)
    assert.same(2, count)
  end)

  it("searches for such comparisons in functions that are called, but not in "
    .. "the library", function()
    local suspicious = require "attune.program.source_check".suspicious
    local function inner(a) return a.i == 3 and a.i:lt(2) or a.i:lt(5) end
    local line = debug.getinfo(inner, "S").linedefined
    local function outer(a) return inner(a) end
    for _, fn in ipairs {
      inner,
      outer,
      attune.masks.all(attune.masks.causal(), inner),
      attune.masks.any(attune.masks.all(inner), attune.masks.causal()),
    } do
      local found = suspicious(fn)
      assert.same(1, #found)
      assert.same(line, found[1][1])
    end
    assert.same(1, #suspicious(function(x1, a)
      if a.i == 3 then return x1 end
      return x1 * 2
    end))
    assert.same(1, #suspicious(function(x1, _) return x1 == 3 and 1 or 2 end))
    assert.same(0, #suspicious(function(x1, a)
      if a.option == 3 or a == nil then return x1 end
      return x1 * 2
    end))
    for _, fn in ipairs {
      attune.masks.natten2d(3, 4, 3),
      attune.masks.all(attune.masks.strided(3), attune.masks.documents {1, 2}),
      attune.scores.alibi(attune.ones {2}),
    } do
      assert.same({}, suspicious(fn))
    end
  end)

  it("shows the program that a function became", function()
    local slope = attune.ones {2}
    local text = attune.program(
      function(s, at) return s - slope[at.h] * (at.i - at.j) * (2 + 1) end
    ):disassemble()
    assert.truthy(text:find "distance, head")
    assert.truthy(text:find "score")
    assert.truthy(text:find "return %%%d+")
    assert.truthy(
      tostring(attune.program(function(at) return at.i:ge(at.j) end)):find "mask program"
    )
  end)
end)
