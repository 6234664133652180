--- Sizes near 2^62: every product and sum of sizes is checked. What needs more memory than the
--- limit or the machine has is refused at once, by the name of its argument; no page is touched.
local attune = require "attune"

local huge = {
  math.maxinteger, (1 << 62) + 1, 1 << 62, (1 << 62) - 1, 1 << 61, 1 << 60, 1 << 58, 1 << 50,
  1 << 44,
}

local q = attune.randn({1, 2, 4, 8}, {seed = 1})
local k = attune.randn({1, 1, 6, 8}, {seed = 2})

-- f(n) is an error whose message has one of the words, for every huge n.
local function refused(f, ...)
  local words = {...}
  for _, n in ipairs(huge) do
    local ok, message = pcall(f, n)
    assert.is_false(ok, n)
    local named = false
    for _, word in ipairs(words) do named = named or message:find(word, 1, true) ~= nil end
    assert.is_true(named, message)
  end
end

-- f(n) gives the same for every huge n.
local function same(f)
  local expected = f(1000)
  for _, n in ipairs(huge) do assert.same(expected, f(n)) end
end

describe("sizes near 2^62", function()
  it("are refused as shapes", function()
    refused(function(n) attune.zeros {n} end, "shape", "out of memory")
    refused(function(n) attune.zeros {n, n} end, "shape")
    refused(function(n) attune.full({2, n}, 1) end, "shape", "out of memory")
    refused(function(n) attune.tensor({1, 2, 3, 4}, {shape = {4, n}}) end, "shape")
    refused(function(n) attune.arange(n) end, "last", "shape", "out of memory")
    refused(function(n) q:view(n, -1) end, "shape")
    refused(function(n) attune.ones({1, 1}):expand(n, 2) end, "shape")
    refused(function(n) q:slice(1, 1, n) end, "last")
    refused(function(n) return q[n] end, "index")
  end)
  it("are windows that hide nothing", function()
    for _, engine in ipairs {"reference", "blis", "tiled", "decode"} do
      for _, causal in ipairs {true, false} do
        same(function(n)
          return attune.attention(q, k, k, {window = n, causal = causal, engine = engine}):tolist()
        end)
        same(function(n)
          local options = {window = {n, n}, causal = causal, engine = engine}
          return attune.attention(q, k, k, options):tolist()
        end)
      end
    end
    same(function(n)
      local o, lse = attune.attention(q, k, k, {window = n})
      return attune.attention_backward(o, q, k, k, o, lse, {window = n}):tolist()
    end)
    local cache = attune.cache {kv_heads = 1, head_dim = 8, capacity = 64}
    cache:append(k, k)
    same(function(n) return cache:attend(q, {window = n}):tolist() end)
  end)
  it("are refused as lengths and counts", function()
    refused(function(n) attune.attention(q, k, k, {lengths = {n}}) end, "lengths")
    refused(function(n) attune.attention(q, k, k, {lengths = {n, n}}) end, "lengths")
    local cache = attune.cache {kv_heads = 1, head_dim = 8, capacity = 64}
    refused(function(n) cache:append(k, k, {counts = {n}}) end, "counts")
    refused(function(n) cache:truncate(n) end, "n: expected")
    refused(function(n) attune.pack({{1, 2}, {3}}, {capacity = n}) end, "capacity")
  end)
  it("are refused by caches and states", function()
    for _, name in ipairs {"batch", "kv_heads", "head_dim", "v_head_dim", "capacity", "window"} do
      for _, dtype in ipairs {"f32", "i8"} do
        refused(function(n)
          local options = {batch = 1, kv_heads = 1, head_dim = 8, capacity = 64, dtype = dtype}
          options[name] = n
          attune.cache(options)
        end, name, "out of memory")
      end
    end
    for _, name in ipairs {"batch", "kv_heads", "head_dim", "v_head_dim"} do
      refused(function(n)
        local options = {batch = 1, kv_heads = 1, head_dim = 8, features = "elu", epsilon = 1}
        options[name] = n
        attune.linear_state(options)
      end, name)
    end
    local options = {head_dim = 1 << 30, v_head_dim = 1 << 30, features = "elu", epsilon = 1}
    assert.is_false((pcall(attune.linear_state, options)))
  end)
  it("are refused by encodings and block maps", function()
    local made = {
      rope = {head_dim = 8}, xpos = {head_dim = 8}, rope2d = {head_dim = 8},
      learned = {d_model = 8, max_positions = 4}, alibi = {heads = 2},
      t5 = {heads = 2, buckets = 32},
    }
    for name, options in pairs(made) do
      for option in pairs(options) do
        refused(function(n)
          local given = {}
          for key, value in pairs(options) do given[key] = value end
          given[option] = n
          attune.position(name, given)
        end, option, "out of memory", "shape", "buckets")
      end
    end
    local mask = attune.masks.causal()
    refused(function(n)
      attune.block_map(mask, {heads = n, queries = n, keys = n})
    end, "queries", "out of memory")
    for _, name in ipairs {"queries", "keys"} do
      refused(function(n)
        local options = {queries = 64, keys = 64}
        options[name] = n
        attune.block_map(mask, options)
      end, name, "out of memory")
    end
  end)
end)
