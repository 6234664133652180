local attune = require "attune"
local fails = require "tests.support.expect".fails

describe("the library", function()
  it("gives Philox's published answer", function()
    assert.same(
      {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, attune.philox({0, 0, 0, 0}, {0, 0})
    )
  end)
  it("describes the machine", function()
    local m = attune.machine()
    assert.is_true(m.cores >= 1 and m.memory > 0 and #m.isas >= 1)
    local found
    for _, isa in ipairs(m.isas) do found = found or isa == m.isa end
    assert.is_true(found)
  end)
  it("refuses an instruction set that is unknown", function()
    local pipe = io.popen [[ATTUNE_ISA=avx1024 lua5.4 -e 'require "attune"' 2>&1]]
    local out = pipe:read "a"
    pipe:close()
    assert.truthy(
      out:find("ATTUNE_ISA: expected an instruction set of this machine %(.*%), got 'avx1024', "
        .. "which is unknown")
    )
    pipe = io.popen [[
      ATTUNE_ISA=neon lua5.4 -e 'require "attune"' 2>&1 ||
        ATTUNE_ISA=avx2 lua5.4 -e 'require "attune"' 2>&1]]
    out = pipe:read "a"
    pipe:close()
    assert.truthy(out:find "ATTUNE_ISA: expected")
  end)
  it("loads what it saved, and returns nil, message and code when a file fails", function()
    local path = os.tmpname()
    assert.is_true(
      attune.save(path, {a = attune.tensor {1, 2}, b = attune.zeros({2, 2}, {dtype = "bf16"})}, {
        note = "x",
      })
    )
    local t, metadata = attune.load(path)
    assert.same({1, 2}, t.a:tolist())
    assert.same("bf16", t.b.dtype)
    assert.same({note = "x"}, metadata)
    os.remove(path)
    local nothing, message, code = attune.load "/nonexistent"
    assert.is_nil(nothing)
    assert.truthy(message:find "/nonexistent" and code == 2)
    assert.is_nil((attune.save("/nonexistent/x", {a = attune.ones {1}})))
    local bad, why, what = attune.load "tests/golden/bad/overlap.safetensors"
    assert.is_nil(bad)
    assert.truthy(why:find "overlap" and what == "EFORMAT")
  end)
  it("lists tensors of a dtype that it cannot read", function()
    local path = os.tmpname()
    local header = [[{"w":{"dtype":"F8_E4M3","shape":[2,1],"data_offsets":[0,2]},]]
      .. [["x":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}]]
    local file = assert(io.open(path, "wb"))
    file:write(string.pack("<I8", #header), header, "\1\2\200\4")
    file:close()
    local t = assert(attune.load(path))
    assert.same({200, 4}, t.x:tolist())
    assert.same("i32", t.x.dtype)
    assert.same("F8_E4M3", t.w.dtype)
    assert.same({2, 1}, t.w.shape)
    local ok, message = pcall(function() return t.w:tolist() end)
    assert.is_false(ok)
    assert.truthy(message:find("tensor 'w': dtype F8_E4M3 cannot be read", 1, true))
    ok, message = pcall(attune.save, path, t)
    assert.is_false(ok)
    assert.truthy(message:find("w: expected a tensor, got a tensor of a dtype that cannot"))
    os.remove(path)
  end)
  it("refuses an ATTUNE_THREADS that is not a number of threads", function()
    for _, text in ipairs {"-1", "257", "abc", "0"} do
      local command = ("ATTUNE_THREADS=%s lua5.4 -e 'require \"attune\"' 2>&1"):format(text)
      local pipe = io.popen(command)
      local out = pipe:read "a"
      pipe:close()
      local said = "ATTUNE_THREADS: expected a number of threads from 1 to 256, got '" .. text
      assert.truthy(out:find(said, 1, true), out)
    end
  end)
  it("sets threads and memory limits, and measures peak and bandwidth", function()
    local before = attune.threads()
    assert.same(1, attune.threads(1))
    for n, got in pairs {[0] = "at least 1, got 0", [257] = "1 to 256, got 257",
      [2 ^ 40 // 1 | 0] = "1 to 256, got 1099511627776", [1.5] = "an integer, got 1.5"} do
      fails("threads: expected .*" .. got, function() attune.threads(n) end)
    end
    assert.same(before, attune.threads(before))
    assert.is_true(attune.measure.peak(0.01) > 1e8)
    assert.is_true(attune.measure.bandwidth(0.01, 1 << 24) > 1e7)
    local t, cache = attune.arange(5), attune.cache {kv_heads = 1, head_dim = 4, capacity = 8}
    assert.same({}, {attune.measure.evict(t, cache)})
    assert.same({0, 1, 2, 3, 4}, t:tolist())
    fails("t: expected a tensor, got nil", attune.measure.evict)
    fails("t: expected a contiguous tensor", function()
      attune.measure.evict(attune.zeros({2, 3}):transpose(1, 2))
    end)
    assert.is_true(attune.clock() <= attune.clock())
    assert.has_error(function() attune.memory {limt = 3} end)
  end)
  it("annotates every public name for language servers", function()
    local files, types = require "attune.util.files", ""
    for _, name in ipairs(files.list "lua/attune/types") do
      types = types .. assert(files.read("lua/attune/types/" .. name))
    end
    for name in pairs(attune) do
      if not name:find "^_" then
        assert.truthy(
          types:find("attune%." .. name .. "[%s(=:]") or types:find("@field " .. name .. " "),
          "no annotation of " .. name
        )
      end
    end
  end)
end)
