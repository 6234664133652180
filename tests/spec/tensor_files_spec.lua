-- Files of tensors: GGUF, shards, and reading one tensor at a time. test_files.c has the malformed
-- headers of safetensors.
local attune = require "attune"
local expect = require "tests.support.expect"
local files = require "attune.util.files"
local golden = require "tests.support.golden"
local json = require "attune.util.json"
local run = require "tests.support.run"

local with_folder = run.with_folder

local function equal_files(a, b)
  for name, x in pairs(a) do
    assert.same(x.dtype, b[name].dtype, name)
    assert.same(x.shape, b[name].shape, name)
    assert.same(0, golden.difference(x, b[name]), name)
  end
  for name in pairs(b) do assert.truthy(a[name], name) end
end

-- Bytes of a GGUF file: pairs are packed by the caller, tensors are {name, extents, type, offset}.
local function gguf(options)
  local out = {
    "GGUF", ("<I4I8I8"):pack(options.version or 3, #(options.tensors or {}), options.pairs or 0),
    options.metadata or "",
  }
  for _, t in ipairs(options.tensors or {}) do
    out[#out + 1] = ("<s8I4"):pack(t[1], #t[2])
    for _, n in ipairs(t[2]) do out[#out + 1] = ("<I8"):pack(n) end
    out[#out + 1] = ("<I4I8"):pack(t[3], t[4])
  end
  local header = table.concat(out)
  return header .. ("\0"):rep(-#header % 32) .. (options.data or "")
end

describe("GGUF files", function()
  it("give the values of the reference for every block format", function()
    local case, expected = golden.load "gguf/blocks.golden.safetensors"
    local t, metadata = attune.load "tests/golden/gguf/blocks.gguf"
    assert.same({["general.architecture"] = "llama"}, metadata)
    for name, values in pairs(expected) do
      local d = golden.difference(t[name]:to "f32", values)
      assert.truthy(d <= case.bounds[name], ("%s: %g"):format(name, d))
    end
    assert.same("f16", t.f16.dtype)
    assert.same("bf16", t.bf16.dtype)
    assert.same("f32", t.q6_k.dtype)
  end)
  it("have typed metadata and shapes with the contiguous axis last", function()
    local file = attune.open "tests/golden/gguf/llama_q8_0.gguf"
    local m = file.metadata
    assert.same("llama", m["general.architecture"])
    assert.same(4, m["llama.attention.head_count"])
    assert.same(10000.0, m["llama.rope.freq_base"])
    assert.same(96, #m["tokenizer.ggml.tokens"])
    assert.same("<unk>", m["tokenizer.ggml.tokens"][1])
    assert.same({format = "Q8_0", dtype = "f32", shape = {32, 64}, bytes = 32 * 64 // 32 * 34},
      file:info "blk.0.ffn_down.weight")
    assert.is_nil(file:info "blk.9.ffn_down.weight")
    file:close()
  end)
  it("are saved and loaded bit for bit, with their metadata", function()
    with_folder(function(folder)
      for _, name in ipairs {"f32", "f16", "q8_0"} do
        local t, m = attune.load("tests/golden/gguf/llama_" .. name .. ".gguf")
        local path = folder .. "/x.gguf"
        assert(attune.save(path, t, m, {q8_0 = name == "q8_0"}))
        local u, n = attune.load(path)
        equal_files(t, u)
        assert.same(m, n)
      end
      local t = {}
      for _, dtype in ipairs {"f32", "f16", "bf16", "f64", "i8", "i32", "i64"} do
        t[dtype] = (attune.randn({3, 5}, {seed = 1}) * 50):to(dtype)
      end
      local m = {
        a = "text\0more", b = 1, c = -1, d = 1 << 40, e = 0.5, f = 0.1, g = true, h = {"x", ""},
        i = {1, -2, 3}, j = {0.5, 0.1}, k = {true, false}, l = {}, ["general.alignment"] = 64,
      }
      assert(attune.save(folder .. "/y.gguf", t, m))
      local u, n = attune.load(folder .. "/y.gguf")
      equal_files(t, u)
      assert.same(m, n)
      assert.same("integer", math.type(n.b))
    end)
  end)
  it("hold matrices in Q8_0 where that is asked for", function()
    with_folder(function(folder)
      local path = folder .. "/x.gguf"
      local w = attune.randn({4, 64}, {seed = 2})
      local t = {w = w, odd = attune.randn({4, 33}, {seed = 3}), v = attune.randn({64}, {seed = 4})}
      assert(attune.save(path, t, nil, {q8_0 = true}))
      local file = attune.open(path)
      assert.same("Q8_0", file:info "w".format)
      assert.same("F32", file:info "odd".format)
      assert.same("F32", file:info "v".format)
      -- Half a step of max / 127, and the rounding of the step to f16.
      local step = w:abs():max():item() / 127
      assert.truthy(golden.difference(file:read "w", w) <= step * (0.5 + 127 / 2048))
      assert.same("bf16", file:read("w", "bf16").dtype)
      assert.same(0, golden.difference(file:read("w", "f64"), file:read "w":to "f64"))
    end)
  end)
  it("keep the values of any block of Q8_0 that was read", function()
    math.randomseed(5)
    local blocks = {}
    for b = 1, 2000 do
      -- Finite factors of f16, of either sign, and integers that need not reach 127.
      local exponent, most = math.random(0, 30), math.random(1, 127)
      local bytes = {("<I2"):pack(math.random(0, 1) << 15 | exponent << 10 | math.random(0, 1023))}
      for i = 1, 32 do bytes[i + 1] = ("<i1"):pack(math.random(-most - 1, most)) end
      blocks[b] = table.concat(bytes)
    end
    local data = table.concat(blocks)
    with_folder(function(folder)
      local path = folder .. "/x.gguf"
      assert(files.write(path, gguf {
        tensors = {{"w", {32, 2000}, 8, 0}}, data = data .. ("\0"):rep(-#data % 32),
      }))
      local w = attune.load(path).w
      assert(attune.save(path, {w = w}, nil, {q8_0 = true}))
      assert.same(0, golden.difference(w, attune.load(path).w))
    end)
  end)
  it("refuse values that Q8_0 cannot hold, and leave no file", function()
    with_folder(function(folder)
      -- From 127 * 65520 on the factor of a block is infinite in f16.
      local limit = 127 * 65520
      assert(attune.save(folder .. "/x.gguf", {w = attune.full({2, 32}, limit - 1)}, nil,
        {q8_0 = true}))
      assert.same(127 * 65504, attune.load(folder .. "/x.gguf").w:max():item())
      for _, value in ipairs {limit, -limit, 1e30, math.huge, -math.huge, 0 / 0} do
        local w = attune.ones {3, 32}
        w:slice(1, 2, 2):fill(value)
        expect.fails_with("Q8_0: expected values between -8321040 and 8321040 in 'w', got",
          function() attune.save(folder .. "/y.gguf", {w = w}, nil, {q8_0 = true}) end)
      end
      assert.same({"x.gguf"}, files.list(folder))
    end)
  end)
  it("name what an open file has, without what is private", function()
    local file <close> = attune.open "tests/golden/gguf/blocks.gguf"
    expect.fails_with("'dimensions': expected one of info, read, close, names, metadata",
      function() return file.dimensions end)
  end)
  it("that cannot be written are refused", function()
    local x = attune.zeros {1, 32}
    for why, arguments in pairs {
      ["expected names of 1 to 63 bytes"] = {{[("x"):rep(64)] = x}},
      ["expected at most 4 axes"] = {{x = attune.zeros {1, 1, 1, 1, 1}}},
      ["expected a list of values of one kind"] = {{x = x}, {k = {1, "a"}}},
      ["expected a power of 2"] = {{x = x}, {["general.alignment"] = 12}},
      ["k: expected a list of texts, numbers or booleans, got a table"] = {{x = x}, {k = {{}}}},
      ["k: expected a list, got a table with the key 'a'"] = {{x = x}, {k = {a = 1}}},
      ["k: expected a list, got a table with the key 'b'"] = {{x = x}, {k = {1, 2, b = 3}}},
      ["general.alignment: expected an integer"] = {{x = x}, {["general.alignment"] = 64.0}},
      ["unknown option 'q8': expected one of q8_0"] = {{x = x}, {}, {q8 = true}},
    } do
      local ok, message = pcall(attune.save, "/tmp/never.gguf", table.unpack(arguments, 1, 3))
      assert.is_false(ok)
      assert.truthy(message:find(why, 1, true), message)
    end
    local ok, message = pcall(attune.save, "/tmp/never.safetensors", {x = x}, nil, {q8_0 = true})
    assert.is_false(ok)
    assert.truthy(message:find("q8_0: expected a path that ends with .gguf", 1, true), message)
  end)
  it("that are malformed are refused with a message, and allocate little", function()
    local pair = ("<s8I4I4"):pack("k", 4, 1)
    local function one(extents, kind, offset, data)
      return gguf {tensors = {{"t", extents, kind, offset}}, data = data}
    end
    local two = function(second, data)
      return gguf {tensors = {{"a", {8}, 0, 0}, {second[1], {8}, 0, second[2]}}, data = data}
    end
    local bytes = ("x"):rep(64)
    for _, case in ipairs {
      {gguf {version = 1}, "expected GGUF version 2 or 3, got 1"},
      {gguf {version = 3 << 24}, "a big-endian file"},
      {gguf {pairs = 2, metadata = pair .. pair}, "expected unique keys of metadata"},
      {gguf {pairs = 1, metadata = ("<s8I4"):pack("k", 13)}, "type of metadata from 0 to 12"},
      {gguf {pairs = 1, metadata = ("<s8I4I4I8"):pack("k", 9, 13, 0)}, "type of metadata from 0"},
      {gguf {pairs = 1, metadata = ("<s8I4I4"):pack("\255", 4, 1)}, "names in UTF-8"},
      {gguf {pairs = 1, metadata = ("<s8I4I4"):pack("", 4, 1)}, "a name of 1 to 65535 bytes"},
      {gguf {pairs = 1, metadata = ("<s8I4I4I8"):pack("k", 9, 12, 1 << 61)}, "ends inside"},
      {gguf {pairs = 1, metadata = ("<s8I4I4"):pack("general.alignment", 4, 0)}, "a power of 2"},
      {one({8, 1, 1, 1, 1}, 0, 0, bytes), "at most 4 axes"},
      {one({0}, 0, 0, bytes), "a shape of integers from 1"},
      {one({1 << 62, 8}, 0, 0, bytes), "its shape overflows"},
      {one({31}, 8, 0, bytes), "last axis of a multiple of 32 for Q8_0"},
      {one({8}, 17, 0, bytes), "type 17 of GGUF is not supported"},
      {one({8}, 0, 32, bytes), "the bytes before it belong to no tensor"},
      {one({8}, 0, 0, bytes .. "y"), "the last bytes of the file belong to no tensor"},
      {two({"b", 0}, bytes), "overlap"},
      {two({"b", 4}, bytes), "overlap"},
      {two({"a", 32}, bytes), "expected unique names"},
      {two({"b", 1 << 62}, bytes), "past the end of the file"},
    } do
      with_folder(function(folder)
        assert(files.write(folder .. "/x.gguf", case[1]))
        local before = attune.memory {reset_peak = true}.bytes
        local t, message, code = attune.load(folder .. "/x.gguf")
        assert.is_nil(t)
        assert.same("EFORMAT", code)
        assert.truthy(message:find(case[2], 1, true), message .. " / " .. case[2])
        assert.truthy(attune.memory().peak - before < 1 << 18)
      end)
    end
  end)
  it("in tests/golden/bad are refused", function()
    local names = {}
    for _, name in ipairs(files.list "tests/golden/bad") do
      local before = attune.memory {reset_peak = true}.bytes
      local t, message, code = attune.load("tests/golden/bad/" .. name)
      assert.is_nil(t, name)
      assert.same("EFORMAT", code)
      assert.truthy(message:find(name, 1, true))
      assert.truthy(attune.memory().peak - before < 1 << 20, name)
      names[#names + 1] = name
    end
    assert.same(15, #names)
  end)
end)

describe("safetensors files", function()
  it("with a field of another kind are refused with the tensor and the field", function()
    with_folder(function(folder)
      local path = folder .. "/x.safetensors"
      local function said(dtype, shape, offsets)
        local header = ('{"w":{"dtype":%s,"shape":%s,"data_offsets":%s}}'):format(
          dtype, shape, offsets)
        assert(files.write(path, ("<s8"):pack(header) .. "1234"))
        local t, message, code = attune.load(path)
        assert.is_nil(t)
        assert.same("EFORMAT", code)
        return message:sub(#path + 3)
      end
      local integer = "expected an integer from 0 to 2^63 - 1"
      for _, case in ipairs {
        {"tensor 'w': data_offsets: " .. integer .. " (byte 48 of the header)",
          '"F32"', "[1]", "[-4,0]"},
        {"tensor 'w': data_offsets: " .. integer, '"F32"', "[1]", "[0,4e0]"},
        {"tensor 'w': shape: " .. integer, '"F32"', "[-1]", "[0,4]"},
        {"tensor 'w': shape: " .. integer, '"F32"', '["1"]', "[0,4]"},
        {"tensor 'w': shape: expected an array", '"F32"', "1", "[0,4]"},
        {"tensor 'w': dtype: expected a text", "32", "[1]", "[0,4]"},
        {"tensor 'w': expected a dtype such as F32, got 'float32'", '"float32"', "[1]", "[0,4]"},
      } do
        local message = said(table.unpack(case, 2))
        assert.same(case[1], message:sub(1, #case[1]))
      end
      local header = '{"__metadata__":{"step":12}}'
      assert(files.write(path, ("<s8"):pack(header)))
      local _, message = attune.load(path)
      assert.truthy(message:find("metadata: expected a text under 'step' (byte", 1, true), message)
    end)
  end)
  it("begin every tensor at a multiple of its elements, as readers need that map them", function()
    with_folder(function(folder)
      local path, t, sizes = folder .. "/x.safetensors", {}, {}
      for i, dtype in ipairs {"i8", "f64", "bf16", "f32", "i64", "f16", "i32", "i8"} do
        local name = ("%d.%s"):format(i, dtype)
        t[name] = attune.arange(2 * i + 1):to(dtype)
        sizes[name] = t[name].nbytes // (2 * i + 1)
      end
      assert(attune.save(path, t))
      local bytes = assert(files.read(path))
      local header = json.decode((("<s8"):unpack(bytes)))
      local begin = 8 + ("<I8"):unpack(bytes)
      for name, entry in pairs(header) do
        assert.same(0, (begin + entry.data_offsets[1]) % sizes[name], name)
      end
      equal_files(t, attune.load(path))
      local file <close> = attune.open(path)
      assert.same("1.i8", file.names[1])
      assert.same("8.i8", file.names[8])
    end)
  end)
  it("whose header no reader would accept are refused, and leave no file", function()
    with_folder(function(folder)
      local path, x = folder .. "/x.safetensors", {x = attune.ones {2}}
      expect.fails_with("metadata: expected at most 100000000 bytes with the names of all tensors",
        function() attune.save(path, x, {note = ("x"):rep(100000000)}) end)
      assert.same({}, files.list(folder))
      assert(attune.save(path, x, {note = ("x"):rep(1000)}))
      assert.same(1000, #select(2, attune.load(path)).note)
    end)
  end)
end)

describe("files of another kind", function()
  it("are refused with what they look like", function()
    local path = os.tmpname()
    finally(function() os.remove(path) end)
    local function said(content)
      local file = assert(io.open(path, "wb"))
      file:write(content)
      file:close()
      local loaded, message, code = attune.load(path)
      assert.is_nil(loaded)
      assert.same("EFORMAT", code)
      return message:sub(#path + 3)
    end
    local expected = "expected a safetensors or GGUF file, got what looks like "
    for content, what in pairs {
      ["1.0 2.0 3.0\n4.0 5.0 6.0\n"] = "text",
      ["a,b\n"] = "text",
      ['{"weights": [1, 2, 3]}'] = "JSON",
      ["<!DOCTYPE html><html></html>"] = "HTML or XML",
      ["PK\3\4\20\0\0\0\8\8"] = "a ZIP archive, such as a PyTorch checkpoint or an .npz file",
      ["\x80\4\x95\x10\0\0\0\0\0\0"] = "a Python pickle",
      ["\x93NUMPY\1\0v\0"] = "a NumPy array",
      ["version https://git-lfs.github.com/spec/v1\n"] =
        "a Git LFS pointer (git lfs pull fetches the file)",
    } do
      assert.same(expected .. what, said(content))
    end
    assert.same(
      "expected a safetensors or GGUF file with a header, got 0 bytes", said ""
    )
    assert.truthy(said(("\xff"):rep(40)):find("header of 18446744073709551615 bytes", 1, true))
  end)
end)

describe("calls about files", function()
  it("refuse further arguments, which would have no effect", function()
    local file <close> = attune.open "tests/golden/gguf/blocks.gguf"
    for what, call in pairs {
      ["save: expected a path, tensors, metadata and options, got a further argument"] =
        function() attune.save("/tmp/never.gguf", {}, {}, {}, true) end,
      ["read: expected a name and a dtype, got a further argument"] =
        function() file:read("f16", "f32", 1) end,
    } do expect.fails_with(what, call) end
  end)
end)

describe("open files", function()
  it("are read one tensor at a time, in the dtype that is asked for", function()
    with_folder(function(folder)
      local path = folder .. "/x.safetensors"
      local t = {
        a = attune.randn({70000}, {seed = 1}), b = attune.randn({3, 4}, {seed = 2}):to "bf16",
        c = attune.arange(5):to "i64",
      }
      assert(attune.save(path, t, {note = "é"}))
      local file = attune.open(path)
      assert.same({"a", "b", "c"}, file.names)
      assert.same({note = "é"}, file.metadata)
      for name, x in pairs(t) do assert.same(0, golden.difference(x, file:read(name))) end
      for _, dtype in ipairs {"f16", "bf16", "f64"} do
        assert.same(0, golden.difference(t.a:to(dtype), file:read("a", dtype)), dtype)
      end
      local ok, message = pcall(file.read, file, "c", "f32")
      assert.is_false(ok)
      assert.truthy(message:find("tensor 'c': dtype I64 cannot be read as f32", 1, true), message)
      ok, message = pcall(file.read, file, "d")
      assert.is_false(ok)
      assert.truthy(message:find("expected the name of a tensor of the file, got 'd'", 1, true))
      file:close()
      ok, message = pcall(file.read, file, "a")
      assert.is_false(ok)
      assert.truthy(message:find("expected an open file", 1, true), message)
    end)
  end)
  it("that shrink give an error where their data is gone", function()
    with_folder(function(folder)
      for _, name in ipairs {"x.safetensors", "x.gguf"} do
        local path = folder .. "/" .. name
        assert(attune.save(path, {a = attune.ones {1000}, b = attune.ones {1000}}))
        local file = attune.open(path)
        assert(os.execute("truncate -s 6000 " .. path))
        assert.same(1000, file:read "a":sum():item())
        for _, dtype in ipairs {"f32", "bf16"} do
          local t, message, code = file:read("b", dtype)
          assert.is_nil(t)
          assert.same("EFORMAT", code)
          assert.truthy(message:find("the file ends inside its data", 1, true), message)
        end
      end
    end)
  end)
end)

describe("shards", function()
  local function shards(folder, index)
    local x = {a = attune.ones {2}, b = attune.full({3}, 2), c = attune.full({4}, 3)}
    assert(attune.save(folder .. "/1.safetensors", {a = x.a, b = x.b}, {format = "pt"}))
    assert(attune.save(folder .. "/2.safetensors", {c = x.c}, {format = "pt"}))
    local path = folder .. "/model.safetensors.index.json"
    assert(files.write(path, type(index) == "string" and index or json.encode {
      metadata = {total_size = 36}, weight_map = index,
    }))
    return path, x
  end
  local good = {a = "1.safetensors", b = "1.safetensors", c = "2.safetensors"}
  it("are one file", function()
    with_folder(function(folder)
      local path, x = shards(folder, good)
      local t, metadata = attune.load(path)
      equal_files(x, t)
      assert.same({format = "pt"}, metadata)
    end)
  end)
  it("that do not hold what the index says are refused", function()
    local function changed(name, file)
      local copy = {}
      for key, value in pairs(good) do copy[key] = value end
      copy[name] = file
      return copy
    end
    for _, case in ipairs {
      {changed("c", "../2.safetensors"), "the name of a file beside the index"},
      {changed("c", "/etc/passwd"), "the name of a file beside the index"},
      {changed("c", "3.safetensors"), "3.safetensors: opening"},
      {changed("d", "2.safetensors"), "expected the tensor 'd', which"},
      {changed("a", nil), "expected no tensor 'a', which"},
      {{a = "1.safetensors", x = "1.safetensors", c = "2.safetensors"},
        "expected no tensor 'b', which"},
      {{}, "expected a weight_map that names tensors"},
      {"{}", "expected a weight_map"},
      {"{\"weight_map\":{\"a\":1}}", "tensor 'a': the name of its file: expected a text (byte 19)"},
      {"{\"weight_map\":[]}", "weight_map: expected an object (byte 14)"},
      {"{\"weight_map\":{\"a\"}}", "the index is not valid JSON: expected :"},
      {"{\"weight_map\":{},\"weight_map\":{}}", "two"},
    } do
      with_folder(function(folder)
        local path = shards(folder, case[1])
        local t, message = attune.load(path)
        assert.is_nil(t)
        assert.truthy(message:find(case[2], 1, true), message .. " / " .. case[2])
      end)
    end
  end)
end)
