local attune = require "attune"
local expect = require "tests.support.expect"
local golden = require "tests.support.golden"

local fails = expect.fails

local engines = {"reference", "blis", "tiled", "decode"}

describe("golden attention", function()
  for _, name in ipairs(golden.files "attention") do
    local case, t = golden.load("attention/" .. name)
    local p = case.params
    if not p.score then -- cases with a score are in program_spec.lua
      it(name, function()
        local options = {
          causal = p.causal or nil, window = p.window, scale = p.scale, softcap = p.softcap,
          lengths = p.lengths, sinks = t.sinks,
        }
        local tried = 0
        for _, engine in ipairs(engines) do
          options.engine = engine
          local ok, o, lse = pcall(attune.attention, t.q, t.k, t.v, options)
          if ok then
            tried = tried + 1
            expect.close(o, t.o, case.bounds.o, engine .. " o")
            if t.lse then expect.close(lse, t.lse, case.bounds.lse, engine .. " lse") end
          else
            assert.same("decode", engine)
            assert.truthy(tostring(o):find "decode takes")
          end
        end
        assert.is_true(tried >= 3)
        if t["do"] then
          for _, engine in ipairs {"reference", "tiled"} do
            options.engine = engine
            local o, lse = attune.attention(t.q, t.k, t.v, options)
            local dq, dk, dv, dtables = attune.attention_backward(
              t["do"], t.q, t.k, t.v, o, lse, options
            )
            expect.close(dq, t.dq, case.bounds.dq, engine .. " dq")
            expect.close(dk, t.dk, case.bounds.dk, engine .. " dk")
            expect.close(dv, t.dv, case.bounds.dv, engine .. " dv")
            if t.dsinks then
              expect.close(dtables[t.sinks], t.dsinks, case.bounds.dsinks, engine .. " dsinks")
            end
          end
        end
        options.engine = nil
        local o64 = attune.attention(t.q:to "f64", t.k:to "f64", t.v:to "f64", options)
        assert.same("f64", o64.dtype)
        expect.close(o64, t.o, case.bounds.o)
      end)
    end
  end
end)

describe("attention", function()
  local q = attune.randn({2, 4, 6, 8}, {seed = 1})
  local k = attune.randn({2, 2, 6, 8}, {seed = 2})
  local v = attune.randn({2, 2, 6, 5}, {seed = 3})
  it("gives o in q's dtype and v's head_dim, and lse in f32", function()
    local o, lse = attune.attention(q:to "bf16", k, v)
    assert.same({2, 4, 6, 5}, o.shape)
    assert.same("bf16", o.dtype)
    assert.same({2, 4, 6}, lse.shape)
    assert.same("f32", lse.dtype)
  end)
  it("equals its weights times v", function()
    local o = attune.attention(q, k, v, {causal = true})
    local w = attune.attention_weights(q, k, {causal = true})
    for h = 1, 4 do
      local by_hand = attune.matmul(w[1][h], v[1][(h - 1) // 2 + 1])
      expect.close(by_hand, o[1][h], 1e-6)
    end
  end)
  it("merges two disjoint sets of keys", function()
    local o, lse = attune.attention(q, k, v)
    local o1, l1 = attune.attention(q, k:slice(3, 1, 2), v:slice(3, 1, 2))
    local o2, l2 = attune.attention(q, k:slice(3, 3, 6), v:slice(3, 3, 6))
    local m, ml = attune.merge(o1, l1, o2, l2)
    expect.close(m, o, 1e-6)
    expect.close(ml, lse, 1e-6)
  end)
  it("rotates q and k with every engine as the encoding does alone", function()
    local pe = attune.position("rope", {head_dim = 8, dims = 4, pairing = "interleaved"})
    local positions = {3, 5, 6, 9, 10, 12}
    local rq, rk = pe:rotate(q, positions), pe:rotate(k, positions)
    local few = q:slice(3, 5, 6)
    for _, engine in ipairs(engines) do
      local rotated = attune.attention(q, k, v, {
        rotate = pe, positions = positions, causal = true, engine = engine,
      })
      expect.close(
        rotated, attune.attention(rq, rk, v, {causal = true, engine = engine}), 1e-6, engine
      )
      -- The queries are the last tokens.
      rotated = attune.attention(few, k, v, {
        rotate = pe, positions = positions, causal = true, engine = engine,
      })
      expect.close(
        rotated, attune.attention(rq:slice(3, 5, 6), rk, v, {causal = true, engine = engine}), 1e-6,
        engine
      )
    end
    expect.close(
      attune.attention_weights(q, k, {rotate = pe}),
      attune.attention_weights(pe:rotate(q), pe:rotate(k)), 1e-6
    )
    fails("positions: expected with rotate only", function()
      attune.attention(q, k, v, {positions = positions})
    end)
    fails("positions: expected %[6%] or %[2, 6%], got %[2%]", function()
      attune.attention(q, k, v, {rotate = pe, positions = {1, 2}})
    end)
    fails("rotate: expected an encoding of head_dim 8, got one of 4", function()
      attune.attention(q, k, v, {rotate = attune.position("rope", {head_dim = 4})})
    end)
    assert.same(
      attune.attention(q, k, v):tolist(),
      attune.attention(q, k, v, {rotate = attune.position("none", {})}):tolist()
    )
  end)
  it("takes a window of two sides, and documents of no tokens", function()
    local function visible(options)
      local rows = {}
      for i, row in ipairs(attune.attention_weights(q, k, options):tolist()[1][1]) do
        local first, last
        for j, weight in ipairs(row) do
          if weight > 0 then first, last = first or j, j end
        end
        rows[i] = {first, last}
      end
      return rows
    end
    assert.same({{1, 3}, {1, 4}, {2, 5}, {3, 6}, {4, 6}, {5, 6}}, visible {window = {1, 2}})
    assert.same({{1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 5}, {1, 6}}, visible {window = {-1, 0}})
    assert.same(visible {window = 3}, visible {window = {2, 2}})
    assert.same(visible {lengths = {2, 4}}, visible {lengths = {0, 2, 0, 4}})
    fails("window: expected tokens, or {left, right}, got a list of 3", function()
      visible {window = {1, 2, 3}}
    end)
    fails("window: expected an integer of at least %-1, got %-2", function()
      visible {window = {-2, 0}}
    end)
  end)
  it("refuses the weights of a problem that the named engine cannot run", function()
    local many = attune.randn({2, 4, 20, 8}, {seed = 1})
    local keys = attune.randn({2, 2, 20, 8}, {seed = 2})
    fails("engine: decode takes at most 16 queries, got 20", function()
      attune.attention_weights(many, keys, {engine = "decode"})
    end)
    fails("engine: decode takes no lengths", function()
      attune.attention_weights(q, k, {engine = "decode", lengths = {6}})
    end)
    fails("engine: expected reference for f64", function()
      attune.attention_weights(q:to "f64", k:to "f64", {engine = "tiled"})
    end)
    assert.same(
      attune.attention_weights(q, k):tolist(),
      attune.attention_weights(q, k, {engine = "decode"}):tolist()
    )
  end)
  it("names the layout that it expects of each argument", function()
    local kv = "a tensor %[batch, kv_heads, keys, head_dim%], got "
    fails("q: expected a tensor %[batch, heads, queries, head_dim%], got nil", function()
      attune.attention()
    end)
    fails("k: expected " .. kv .. "nil", function() attune.attention(q) end)
    fails("v: expected " .. kv .. "'v'", function() attune.attention(q, k, "v") end)
    local cache = attune.cache {kv_heads = 2, head_dim = 8, capacity = 64}
    local tokens = "expected a tensor %[batch, kv_heads, tokens, head_dim%], got "
    fails("k: " .. tokens .. "nil", function() cache:append() end)
    fails("v: " .. tokens .. "a table", function() cache:append(k, {}) end)
    fails("q: expected a tensor %[batch, heads, queries, head_dim%], got nil", function()
      cache:attend()
    end)
    local pe = attune.position("rope", {head_dim = 8})
    local expected = "x: expected a tensor %[batch, heads, tokens, head_dim%], got 'q'"
    fails(expected, function() pe:rotate "q" end)
    fails(
      "x: expected %[batch, heads, tokens, head_dim%] with head_dim 8, got %[2, 4, 6%]",
      function() pe:rotate(attune.zeros {2, 4, 6}) end
    )
  end)
  it("takes one list of lengths per batch row", function()
    local o = attune.attention(q, k, v, {lengths = {{2, 4}, {6}}})
    local alone = attune.attention(q:slice(1, 2, 2), k:slice(1, 2, 2), v:slice(1, 2, 2))
    expect.close(o:slice(1, 2, 2), alone, 1e-6)
  end)
  it("refuses wrong arguments with a message that names them", function()
    fails("k: expected a number of kv heads that divides q's 4 heads, got 3", function()
      attune.attention(q, attune.zeros {2, 3, 6, 8}, v)
    end)
    fails("k: expected batch 2 to match q %[2, 4, 6, 8%], got %[3, 2, 6, 8%]", function()
      attune.attention(q, attune.zeros {3, 2, 6, 8}, v)
    end)
    fails("k: expected head_dim 8 to match q %[2, 4, 6, 8%], got %[2, 2, 6, 9%]", function()
      attune.attention(q, attune.zeros {2, 2, 6, 9}, v)
    end)
    fails("v: expected kv_heads 2 to match k %[2, 2, 6, 8%], got %[2, 1, 6, 8%]", function()
      attune.attention(q, k, attune.zeros {2, 1, 6, 8})
    end)
    fails("v: expected keys 6 to match k %[2, 2, 6, 8%], got %[2, 2, 7, 8%]", function()
      attune.attention(q, k, attune.zeros {2, 2, 7, 8})
    end)
    fails("window: expected an integer of at least 1, got %-3", function()
      attune.attention(q, k, v, {window = -3})
    end)
    fails("unknown option 'windw': did you mean 'window'", function()
      attune.attention(q, k, v, {windw = 3})
    end)
    fails("unknown engine 'tile': did you mean 'tiled'", function()
      attune.attention(q, k, v, {engine = "tile"})
    end)
    fails("causal: expected true or false, got 1", function()
      attune.attention(q, k, v, {causal = 1})
    end)
    fails("attention: expected q, k, v and options, got a further argument, true", function()
      attune.attention(q, k, v, {}, true)
    end)
    fails("attention_weights: expected q, k and options, got a further argument", function()
      attune.attention_weights(q, k, nil, {causal = true})
    end)
    fails("merge: expected o1, lse1, o2 and lse2, got a further argument, 1", function()
      attune.merge(q, q, q, q, 1)
    end)
    local pe = attune.position("rope", {head_dim = 8})
    fails("rotate: expected x, positions, and 'q' or 'k', got a further argument, 1", function()
      pe:rotate(q, nil, "q", 1)
    end)
    fails("embed: expected x and positions, got a further argument, 'q'", function()
      pe:embed(q, nil, "q")
    end)
    fails("program: expected one function, got a further argument, 'mask'", function()
      return attune.program(function(s) return s end, "mask")
    end)
    attune.attention(q, k, v, nil, nil)
    fails("scale: expected a finite number", function()
      attune.attention(q, k, v, {scale = 0 / 0})
    end)
    fails("softcap: expected a positive number, got 0", function()
      attune.attention(q, k, v, {softcap = 0})
    end)
    fails("sinks: expected %[4%]", function()
      attune.attention(q, k, v, {sinks = attune.zeros {3}})
    end)
    fails("lengths: expected a sum of 6 tokens, got 5", function()
      attune.attention(q, k, v, {lengths = {2, 3}})
    end)
    fails("lengths: expected one list, or one for each of 2 batch rows, got 3", function()
      attune.attention(q, k, v, {lengths = {{6}, {6}, {6}}})
    end)
    fails("q: expected a tensor %[batch, heads, queries, head_dim%], got nil", function()
      attune.attention(nil, k, v)
    end)
    fails("q: expected 4 axes", function() attune.attention(q[1], k, v) end)
    fails("q: expected 4 axes.*got 0", function() attune.attention(q:sum(), k, v) end)
    fails("engine: expected reference for f64", function()
      attune.attention(q:to "f64", k:to "f64", v:to "f64", {engine = "tiled"})
    end)
    fails("options: expected a table", function() attune.attention(q, k, v, 3) end)
    fails("mask: .* f32 tensor; write score = function%(s, at%) return s %+ m%[at.i%]", function()
      attune.attention(q, k, v, {mask = attune.zeros {4, 4}})
    end)
    fails("mask: .*write mask = function%(at%) return m%[at.j%]:ne%(0%) end", function()
      attune.attention(q, k, v, {mask = attune.zeros({4}, {dtype = "i32"})})
    end)
    fails("bias: .*write score = function%(s, at%) return s %+ bias%[at.h%]", function()
      attune.attention(q, k, v, {bias = attune.zeros {2, 4, 4}})
    end)
    fails("unknown option 'attn_bias': write score", function()
      attune.attention(q, k, v, {attn_bias = 1})
    end)
  end)
end)

describe("a tensor that is sinks and is read by the score", function()
  it("has the sum of both gradients", function()
    local function gradients(dtype, sinks, factor)
      local x = {}
      for i = 1, 4 do x[i] = attune.randn({1, 2, 3, 4}, {seed = i}):to(dtype) end
      local options = {sinks = sinks, score = function(s, at) return s * factor[at.h] end}
      local o, lse = attune.attention(x[1], x[2], x[3], options)
      return select(4, attune.attention_backward(x[4], x[1], x[2], x[3], o, lse, options))
    end
    for _, dtype in ipairs {"f32", "f64"} do
      local both, other = attune.tensor {0.5, -0.3}, attune.tensor {0.5, -0.3}
      local apart, together = gradients(dtype, other, both), gradients(dtype, both, both)
      local sum = apart[both]:to "f64" + apart[other]:to "f64"
      expect.close(together[both]:to "f64", sum, 1e-6)
    end
  end)
end)

describe("the cache", function()
  it("gives the same outputs as prefill when it decodes, in every dtype", function()
    for _, dtype in ipairs {"f32", "bf16", "f16"} do
      local k = attune.randn({1, 2, 20, 16}, {seed = 1}):to(dtype)
      local v = attune.randn({1, 2, 20, 16}, {seed = 2}):to(dtype)
      local q = attune.randn({1, 6, 20, 16}, {seed = 3})
      local whole = attune.attention(q, k, v, {causal = true, engine = "reference"})
      local cache = attune.cache {
        batch = 1, kv_heads = 2, head_dim = 16, capacity = 20, dtype = dtype,
      }
      for i = 1, 20 do
        cache:append(k:slice(3, i, i), v:slice(3, i, i))
        local o = cache:attend(q:slice(3, i, i))
        expect.close(o, whole:slice(3, i, i), 3e-6)
      end
      assert.same(20, cache.length)
    end
  end)
  it("has with i8 at most the error that rounding to 8 bits gives", function()
    -- The plain formula with k, v, q and the weights rounded to 8 bits, each row of each with a
    -- scale of its own.
    local function rounded(x, row)
      local scale = 0
      for _, e in ipairs(row) do scale = math.max(scale, math.abs(e)) end
      scale = scale / 127
      for i, e in ipairs(row) do
        row[i] = scale == 0 and 0 or math.floor(e / scale + 0.5) * scale
      end
      return x
    end
    local function in_8_bits(x)
      local list = x:tolist()
      for _, b in ipairs(list) do
        for _, h in ipairs(b) do
          for _, row in ipairs(h) do rounded(nil, row) end
        end
      end
      return attune.tensor(list)
    end
    for _, D in ipairs {16, 40, 128} do
      local k = attune.randn({1, 2, 90, D}, {seed = 1})
      local v = attune.randn({1, 2, 90, D}, {seed = 2})
      local q = attune.randn({1, 8, 90, D}, {seed = 3})
      local exact = attune.attention(q, k, v, {causal = true, engine = "reference"})
      local weights = in_8_bits(
        attune.attention_weights(in_8_bits(q), in_8_bits(k), {causal = true})
      )
      local v8, worst = in_8_bits(v), 0
      for h = 1, 8 do
        worst = math.max(
          worst,
          golden.difference(attune.matmul(weights[1][h], v8[1][(h - 1) // 4 + 1]), exact[1][h])
        )
      end
      local cache = attune.cache {kv_heads = 2, head_dim = D, capacity = 90, dtype = "i8"}
      cache:append(k, v)
      expect.close(cache:attend(q), exact, worst)
      for _, n in ipairs {1, 3, 16} do
        expect.close(cache:attend(q:slice(3, 91 - n, 90)), exact:slice(3, 91 - n, 90), worst)
      end
    end
    local cache = attune.cache {kv_heads = 1, head_dim = 16, capacity = 64, dtype = "i8"}
    local k = attune.ones {1, 1, 1, 16}
    cache:append(k * 0, k * 3)
    assert.same(3, math.floor(cache:attend(k)[1][1][1][5]:item() * 1e4 + 0.5) / 1e4)
  end)
  it("rotates keys when they are appended and queries when they attend", function()
    local pe = attune.position("rope", {head_dim = 16})
    local k = attune.randn({2, 2, 20, 16}, {seed = 1})
    local v = attune.randn({2, 2, 20, 16}, {seed = 2})
    local q = attune.randn({2, 6, 20, 16}, {seed = 3})
    local whole = attune.attention(q, k, v, {causal = true, rotate = pe, engine = "reference"})
    local cache = attune.cache {batch = 2, kv_heads = 2, head_dim = 16, capacity = 20}
    for i = 1, 20 do
      cache:append(k:slice(3, i, i), v:slice(3, i, i), {rotate = pe})
      expect.close(cache:attend(q:slice(3, i, i), {rotate = pe}), whole:slice(3, i, i), 3e-6)
    end
    -- Rows of different length have positions of their own.
    cache:reset()
    cache:append(k, v, {rotate = pe, counts = {20, 13}})
    expect.close(
      cache:attend(q:slice(3, 13, 13), {rotate = pe})[2], whole:slice(3, 13, 13)[2], 3e-6
    )
    fails("rotate: expected an encoding of head_dim 16", function()
      cache:attend(q:slice(3, 1, 1), {rotate = attune.position("rope", {head_dim = 8})})
    end)
  end)
  it("counts its bytes exactly", function()
    local function bytes(o) return attune.cache(o).nbytes end
    assert.same(
      2 * 1 * 1 * 8192 * 128 * 2,
      bytes {batch = 1, kv_heads = 1, head_dim = 128, capacity = 8192, dtype = "bf16"}
    )
    assert.same(
      2 * 3 * 8 * 512 * 64 * 4, bytes {batch = 3, kv_heads = 8, head_dim = 64, capacity = 512}
    )
    assert.same(
      2 * 2 * 4 * 128 * (32 * 1 + 4),
      bytes {batch = 2, kv_heads = 4, head_dim = 32, capacity = 128, dtype = "i8"}
    )
    assert.same(
      2 * 1 * 1 * 320 * 16 * 2, bytes {kv_heads = 1, head_dim = 16, window = 256, dtype = "f16"}
    )
  end)
  it("reports its lengths and its dtype", function()
    local cache = attune.cache {batch = 2, kv_heads = 1, head_dim = 8, capacity = 16}
    local k = attune.zeros {2, 1, 6, 8}
    cache:append(k, k, {counts = {6, 2}})
    assert.same({6, 2}, cache.lengths)
    assert.same(6, cache.length)
    cache:truncate(4)
    assert.same({4, 2}, cache.lengths)
    cache:reset()
    assert.same(0, cache.length)
    assert.truthy(tostring(cache):find "f32 cache")
    cache:close()
    cache:close()
    fails("closed", function() return cache.length end)
  end)
  it("refuses queries whose windows a truncated ring no longer holds", function()
    local k, v = attune.randn {1, 1, 200, 8}, attune.randn {1, 1, 200, 8}
    local q = attune.randn {1, 1, 1, 8}
    local cache = attune.cache {kv_heads = 1, head_dim = 8, window = 65}
    for t = 1, 200 do cache:append(k:slice(3, t, t), v:slice(3, t, t)) end
    local oldest = 200 - cache.capacity
    assert.is_true(oldest > 0)
    cache:truncate(oldest + 65)
    local o = cache:attend(q)
    local from, to = oldest + 1, oldest + 65
    expect.close(o, attune.attention(q, k:slice(3, from, to), v:slice(3, from, to)), 1e-5)
    fails("the ring holds no token before it any more, got 2 queries", function()
      cache:attend(attune.randn {1, 1, 2, 8})
    end)
    cache:truncate(oldest + 64)
    fails("the ring holds no token before it any more, got 1 queries", function()
      cache:attend(q)
    end)
    cache:append(k:slice(3, 1, 1), v:slice(3, 1, 1))
    cache:attend(q)
  end)
  it("refuses wrong arguments and keeps its contents", function()
    local cache = attune.cache {kv_heads = 2, head_dim = 8, capacity = 4}
    local k = attune.ones {1, 2, 3, 8}
    cache:append(k, k)
    fails("at most 1 more tokens %(capacity 4, length 3%), got 3", function()
      cache:append(k, k)
    end)
    assert.same(3, cache.length)
    fails("q: expected %[1, a multiple of 2 heads, queries, 8%]", function()
      cache:attend(attune.ones {1, 3, 1, 8})
    end)
    fails("unknown option 'casual'", function()
      cache:attend(attune.ones {1, 2, 1, 8}, {casual = true})
    end)
    fails("unknown method or field 'lenght': did you mean 'length", function()
      return cache.lenght
    end)
    fails("n: expected an integer of at least 0", function() cache:truncate(-1) end)
    fails("n: expected at most the cache's length", function() cache:truncate(1 << 40) end)
    fails("capacity: expected", function() attune.cache {kv_heads = 1, head_dim = 8} end)
    fails("kv_heads: expected", function() attune.cache {head_dim = 8, capacity = 8} end)
    fails("counts: expected 1 numbers", function() cache:append(k, k, {counts = {1, 2}}) end)
  end)
end)

describe("Ctrl-C", function()
  it("ends a long kernel soon and leaves the library usable", function()
    local uv = require "luv"
    local script = [[
      local attune = require "attune"
      local q = attune.randn({1, 8, 3000, 64}, {seed = 1})
      io.stdout:write "ready\n"
      io.stdout:flush()
      local ok, message = pcall(attune.attention, q, q, q, {engine = "reference"})
      local part = q:slice(3, 1, 9)
      local usable = attune.attention(part, part, part, {causal = true})
      print(ok, tostring(message):match "interrupted!", usable.shape[3])
    ]]
    local out, pipe, ended, open = "", uv.new_pipe(false), false, true
    local handle, pid
    handle, pid = uv.spawn("lua5.4", {args = {"-e", script}, stdio = {nil, pipe, 2}}, function()
      ended = true
    end)
    pipe:read_start(function(_, chunk)
      if not chunk then
        open = false
        return
      end
      if out == "" then
        local timer = uv.new_timer()
        timer:start(300, 0, function()
          uv.kill(pid, "sigint")
          timer:close()
        end)
      end
      out = out .. chunk
    end)
    while not ended or open do uv.run "once" end
    handle:close()
    pipe:close()
    uv.run "nowait"
    assert.truthy(out:find "false%s+interrupted!%s+9", out)
  end)
end)
