local attune = require "attune"
local golden = require "tests.support.golden"

local function fails(pattern, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(pattern), ("expected a message with '%s', got: %s"):format(pattern, tostring(message)))
end

local engines = {"reference", "blis", "tiled", "decode"}

describe("golden attention", function()
  for _, name in ipairs(golden.files "attention") do
    local case, t = golden.load("attention/" .. name)
    local p = case.params
    -- Scores as functions are not built yet.
    if not p.score then
      it(name, function()
        local options = {causal = p.causal or nil, window = p.window, scale = p.scale, softcap = p.softcap, lengths = p.lengths, sinks = t.sinks}
        local tried = 0
        for _, engine in ipairs(engines) do
          options.engine = engine
          local ok, o, lse = pcall(attune.attention, t.q, t.k, t.v, options)
          if ok then
            tried = tried + 1
            assert.is_true(golden.difference(o, t.o) <= case.bounds.o, engine .. " o")
            if t.lse then assert.is_true(golden.difference(lse, t.lse) <= case.bounds.lse, engine .. " lse") end
          else
            assert.same("decode", engine)
            assert.truthy(tostring(o):find "decode takes")
          end
        end
        assert.is_true(tried >= 3)
        options.engine = nil
        local o64 = attune.attention(t.q:to "f64", t.k:to "f64", t.v:to "f64", options)
        assert.same("f64", o64.dtype)
        assert.is_true(golden.difference(o64, t.o) <= case.bounds.o)
      end)
    end
  end
end)

describe("attention", function()
  local q, k, v = attune.randn({2, 4, 6, 8}, {seed = 1}), attune.randn({2, 2, 6, 8}, {seed = 2}), attune.randn({2, 2, 6, 5}, {seed = 3})
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
      assert.is_true(golden.difference(by_hand, o[1][h]) < 1e-6)
    end
  end)
  it("merges two disjoint sets of keys", function()
    local o, lse = attune.attention(q, k, v)
    local o1, l1 = attune.attention(q, k:slice(3, 1, 2), v:slice(3, 1, 2))
    local o2, l2 = attune.attention(q, k:slice(3, 3, 6), v:slice(3, 3, 6))
    local m, ml = attune.merge(o1, l1, o2, l2)
    assert.is_true(golden.difference(m, o) < 1e-6)
    assert.is_true(golden.difference(ml, lse) < 1e-6)
  end)
  it("takes one list of lengths a batch row", function()
    local o = attune.attention(q, k, v, {lengths = {{2, 4}, {6}}})
    local alone = attune.attention(q:slice(1, 2, 2), k:slice(1, 2, 2), v:slice(1, 2, 2))
    assert.is_true(golden.difference(o:slice(1, 2, 2), alone) < 1e-6)
  end)
  it("refuses what is wrong, naming it", function()
    fails("k: expected a number of kv heads that divides q's 4 heads, got 3", function() attune.attention(q, attune.zeros {2, 3, 6, 8}, v) end)
    fails("v: expected %[2, 2, 6, head_dim%]", function() attune.attention(q, k, attune.zeros {2, 2, 7, 8}) end)
    fails("window: expected an integer of at least 1, got %-3", function() attune.attention(q, k, v, {window = -3}) end)
    fails("unknown option 'windw': did you mean 'window'", function() attune.attention(q, k, v, {windw = 3}) end)
    fails("unknown engine 'tile': did you mean 'tiled'", function() attune.attention(q, k, v, {engine = "tile"}) end)
    fails("causal: expected true or false, got 1", function() attune.attention(q, k, v, {causal = 1}) end)
    fails("scale: expected a finite number", function() attune.attention(q, k, v, {scale = 0 / 0}) end)
    fails("softcap: expected a positive number, got 0", function() attune.attention(q, k, v, {softcap = 0}) end)
    fails("sinks: expected %[4%]", function() attune.attention(q, k, v, {sinks = attune.zeros {3}}) end)
    fails("lengths: expected a sum of 6 tokens, got 5", function() attune.attention(q, k, v, {lengths = {2, 3}}) end)
    fails("lengths: expected one list, or one for each of 2 batch rows, got 3", function() attune.attention(q, k, v, {lengths = {{6}, {6}, {6}}}) end)
    fails("q: expected a tensor, got nil", function() attune.attention(nil, k, v) end)
    fails("q: expected 4 axes", function() attune.attention(q[1], k, v) end)
    fails("q: expected 4 axes.*got 0", function() attune.attention(q:sum(), k, v) end)
    fails("engine: expected reference for f64", function() attune.attention(q:to "f64", k:to "f64", v:to "f64", {engine = "tiled"}) end)
    fails("options: expected a table", function() attune.attention(q, k, v, 3) end)
  end)
end)

describe("the cache", function()
  it("decodes as prefill does, in every dtype", function()
    for _, dtype in ipairs {"f32", "bf16", "f16"} do
      local k, v = attune.randn({1, 2, 20, 16}, {seed = 1}):to(dtype), attune.randn({1, 2, 20, 16}, {seed = 2}):to(dtype)
      local q = attune.randn({1, 6, 20, 16}, {seed = 3})
      local whole = attune.attention(q, k, v, {causal = true, engine = "reference"})
      local cache = attune.cache {batch = 1, kv_heads = 2, head_dim = 16, capacity = 20, dtype = dtype}
      for i = 1, 20 do
        cache:append(k:slice(3, i, i), v:slice(3, i, i))
        local o = cache:attend(q:slice(3, i, i))
        assert.is_true(golden.difference(o, whole:slice(3, i, i)) < 3e-6)
      end
      assert.same(20, cache.length)
    end
  end)
  it("counts its bytes exactly", function()
    local function bytes(o) return attune.cache(o).nbytes end
    assert.same(2 * 1 * 1 * 8192 * 128 * 2, bytes {batch = 1, kv_heads = 1, head_dim = 128, capacity = 8192, dtype = "bf16"})
    assert.same(2 * 3 * 8 * 512 * 64 * 4, bytes {batch = 3, kv_heads = 8, head_dim = 64, capacity = 512})
    assert.same(2 * 1 * 1 * 320 * 16 * 2, bytes {kv_heads = 1, head_dim = 16, window = 256, dtype = "f16"})
  end)
  it("says what it holds", function()
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
  it("refuses what is wrong and stays as it was", function()
    local cache = attune.cache {kv_heads = 2, head_dim = 8, capacity = 4}
    local k = attune.ones {1, 2, 3, 8}
    cache:append(k, k)
    fails("at most 1 more tokens %(capacity 4, length 3%), got 3", function() cache:append(k, k) end)
    assert.same(3, cache.length)
    fails("q: expected %[1, a multiple of 2 heads, queries, 8%]", function() cache:attend(attune.ones {1, 3, 1, 8}) end)
    fails("unknown option 'casual'", function() cache:attend(attune.ones {1, 2, 1, 8}, {casual = true}) end)
    fails("unknown method or field 'lenght': did you mean 'length", function() return cache.lenght end)
    fails("n: expected an integer of at least 0", function() cache:truncate(-1) end)
    fails("capacity: expected", function() attune.cache {kv_heads = 1, head_dim = 8} end)
    fails("kv_heads: expected", function() attune.cache {head_dim = 8, capacity = 8} end)
    fails("counts: expected 1 numbers", function() cache:append(k, k, {counts = {1, 2}}) end)
  end)
end)

describe("Ctrl-C", function()
  it("ends a long kernel soon and leaves everything usable", function()
    local uv = require "luv"
    local script = [[
      local attune = require "attune"
      local q = attune.randn({1, 8, 3000, 64}, {seed = 1})
      io.stdout:write "ready\n"
      io.stdout:flush()
      local ok, message = pcall(attune.attention, q, q, q, {engine = "reference"})
      local usable = attune.attention(q:slice(3, 1, 9), q:slice(3, 1, 9), q:slice(3, 1, 9), {causal = true})
      print(ok, tostring(message):match "interrupted!", usable.shape[3])
    ]]
    local out, pipe, ended, open = "", uv.new_pipe(false), false, true
    local handle, pid
    handle, pid = uv.spawn("lua5.4", {args = {"-e", script}, stdio = {nil, pipe, 2}}, function() ended = true end)
    pipe:read_start(function(_, chunk)
      if not chunk then open = false return end
      if out == "" then
        local timer = uv.new_timer()
        timer:start(300, 0, function() uv.kill(pid, "sigint") timer:close() end)
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
