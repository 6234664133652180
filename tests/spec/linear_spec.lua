local attune = require "attune"
local expect = require "tests.support.expect"
local golden = require "tests.support.golden"

local fails = expect.fails_with

local kinds = {softmax = "favor+", relu = "relu"}

describe("golden linear attention", function()
  for _, name in ipairs(golden.files "linear") do
    it(name, function()
      local case, t = golden.load("linear/" .. name)
      local p, bounds = case.params, case.bounds
      local options = {
        causal = p.causal, features = kinds[p.kernel], projection = t.projection,
        epsilon = p.epsilon,
      }
      if p.rotate_features then
        options.rotate = attune.position("rope", {
          head_dim = p.features, base = p.base, pairing = p.pairing,
        })
      end
      local function check(got, what)
        local d = golden.difference(got, t[what])
        assert.is_true(d <= bounds[what], ("%s: %g, bound %g"):format(what, d, bounds[what]))
      end
      check(attune.linear_attention(t.q, t.k, t.v, options), "o")
      if p.kernel == "softmax" then
        check(
          attune.favor_features(t.q, {
            projection = t.projection, query = true, epsilon = p.epsilon,
          }),
          "fq"
        )
        check(attune.favor_features(t.k, {projection = t.projection, epsilon = p.epsilon}), "fk")
      end
      if t["do"] then
        local dq, dk, dv = attune.linear_attention_backward(t["do"], t.q, t.k, t.v, options)
        check(dq, "dq")
        check(dk, "dk")
        check(dv, "dv")
      end
      local f64 = {}
      for _, x in ipairs {"q", "k", "v"} do f64[x] = t[x]:to "f64" end
      check(attune.linear_attention(f64.q, f64.k, f64.v, options):to "f32", "o")
      local state = attune.linear_state {
        batch = t.q.shape[1], kv_heads = t.k.shape[2], head_dim = t.q.shape[4],
        features = options.features, projection = t.projection, rotate = options.rotate,
        epsilon = p.epsilon,
      }
      local last = t.q.shape[3]
      state:append(t.k:slice(3, 1, 5), t.v:slice(3, 1, 5)):append(
        t.k:slice(3, 6, last), t.v:slice(3, 6, last)
      )
      expect.close(state:attend(t.q:slice(3, last, last)), t.o:slice(3, last, last), bounds.o)
    end)
  end
end)

local w = attune.favor_projection {head_dim = 16, features = 32, seed = 1}
local q = attune.randn({2, 4, 30, 16}, {seed = 1})
local k = attune.randn({2, 2, 30, 16}, {seed = 2})
local v = attune.randn({2, 2, 30, 12}, {seed = 3})

describe("linear attention", function()
  it("is causal only on request, and takes fewer kv heads and another head_dim of v", function()
    local o = attune.linear_attention(q, k, v, {projection = w})
    assert.same({2, 4, 30, 12}, o.shape)
    expect.differ(o, attune.linear_attention(q, k, v, {projection = w, causal = true}), 0.01)
    expect.close(
      o:slice(3, 30, 30),
      attune.linear_attention(q, k, v, {projection = w, causal = true}):slice(3, 30, 30), 1e-5
    )
  end)
  it("gives grouped heads the same outputs as repeated heads", function()
    local function twice(t)
      local n = t.shape
      return t:view(n[1], n[2], 1, n[3], n[4]):expand(n[1], n[2], 2, n[3], n[4]):contiguous():view(
        n[1], 2 * n[2], n[3], n[4]
      )
    end
    for _, causal in ipairs {false, true} do
      local options = {projection = w, causal = causal}
      expect.close(
        attune.linear_attention(q, k, v, options),
        attune.linear_attention(q, twice(k), twice(v), options), 1e-5
      )
    end
  end)
  it("keeps q's dtype", function()
    for _, dtype in ipairs {"f32", "bf16", "f16", "f64"} do
      local o = attune.linear_attention(q:to(dtype), k:to(dtype), v:to(dtype), {
        projection = w, causal = true,
      })
      assert.same(dtype, o.dtype)
      expect.close(
        o:to "f32", attune.linear_attention(q, k, v, {projection = w, causal = true}),
        (dtype == "bf16" and 0.05 or 0.01)
      )
    end
    assert.same("bf16", attune.favor_features(q:to "bf16", {projection = w}).dtype)
  end)
  it("takes each kind of features, and elu without a projection", function()
    for _, kind in ipairs {"favor+", "trig", "relu", "elu"} do
      local o = attune.linear_attention(q, k, v, {
        features = kind, projection = kind ~= "elu" and w or nil, epsilon = 0.01, causal = true,
      })
      assert.same({2, 4, 30, 12}, o.shape)
      expect.close(o:slice(3, 1, 1):slice(2, 1, 1), v:slice(3, 1, 1):slice(2, 1, 1), 1e-4)
    end
  end)
  it("rotates features, and ignores an encoding without a rotation", function()
    local plain = attune.linear_attention(q, k, v, {projection = w})
    assert.same(
      plain:tolist(),
      attune.linear_attention(q, k, v, {
        projection = w,
        rotate = attune.position("none", {}),
      }):tolist()
    )
    expect.differ(
      plain,
      attune.linear_attention(q, k, v, {
        projection = w,
        rotate = attune.position("rope", {head_dim = 32}),
      }),
      0.01
    )
  end)
  it("gives gradients in the inputs' shapes and dtypes", function()
    local dq, dk, dv = attune.linear_attention_backward(
      attune.randn({2, 4, 30, 12}, {seed = 4}), q, k, v, {projection = w, causal = true}
    )
    assert.same({q.shape, k.shape, v.shape}, {dq.shape, dk.shape, dv.shape})
    assert.same("f32", dq.dtype)
  end)
  it("draws the same projection from the same seed", function()
    assert.same({40, 16}, attune.favor_projection {head_dim = 16, features = 40, seed = 1}.shape)
    assert.same(
      attune.favor_projection({head_dim = 4, features = 6, seed = 7}):tolist(),
      attune.favor_projection({head_dim = 4, features = 6, seed = 7}):tolist()
    )
    assert.are_not.same(
      attune.favor_projection({head_dim = 4, features = 6, seed = 7}):tolist(),
      attune.favor_projection({head_dim = 4, features = 6, seed = 8}):tolist()
    )
    -- Other numbers from the same seed are not parallel to the projection.
    local x = attune.randn({16}, {seed = 7})
    local row = attune.favor_projection({head_dim = 16, features = 1, seed = 7}):view {16}
    local cosine = (x * row):sum():item() / math.sqrt(
      (x * x):sum():item() * (row * row):sum():item()
    )
    assert.is_true(math.abs(cosine) < 0.9)
    local function drawn()
      attune.set_seed(5)
      return attune.favor_projection({head_dim = 4, features = 6}):tolist()
    end
    assert.same(drawn(), drawn())
  end)
  it("refuses wrong arguments with a message that names them", function()
    local function run(options) return function() attune.linear_attention(q, k, v, options) end end
    fails("unknown option 'casual': did you mean 'causal'", run {casual = true})
    fails("unknown features 'favor': did you mean 'favor+'", run {features = "favor"})
    fails("features: expected a name, got 3", run {features = 3})
    fails("causal: expected true or false, got 1", run {causal = 1})
    fails("projection: expected a tensor [features, 16] for favor+, got none", run {})
    fails(
      "projection: expected a tensor [features, 16] for relu, got none", run {features = "relu"}
    )
    fails("projection: expected a tensor, got 'w'", run {projection = "w"})
    fails("projection: expected [features, 16], got [4, 8]", run {projection = attune.zeros {4, 8}})
    fails(
      "projection: expected a float dtype, got i32",
      run {projection = attune.zeros({4, 16}, {dtype = "i32"})}
    )
    fails("epsilon: expected a number of at least 0, got -1", run {projection = w, epsilon = -1})
    fails("epsilon: expected a number, got 'x'", run {projection = w, epsilon = "x"})
    fails(
      "rotate: expected a positional encoding, got 'rope'", run {projection = w, rotate = "rope"}
    )
    fails(
      "rotate: expected an encoding of head_dim 32, the number of features, got one of 16",
      run {projection = w, rotate = attune.position("rope", {head_dim = 16})}
    )
    fails(
      "head_dim 64, the number of features",
      run {features = "trig", projection = w, rotate = attune.position("rope", {head_dim = 32})}
    )
    fails("options: expected a table of named fields, got 3", function()
      attune.linear_attention(q, k, v, 3)
    end)
    fails("q: expected a tensor, got nil", function() attune.linear_attention(nil, k, v) end)
    fails("q: expected [batch, heads, queries, head_dim], got [4, 16]", function()
      attune.linear_attention(attune.zeros {4, 16}, k, v, {projection = w})
    end)
    fails("k: expected batch 2 to match q [2, 4, 30, 16], got [1, 2, 30, 16]", function()
      attune.linear_attention(q, attune.zeros {1, 2, 30, 16}, v, {projection = w})
    end)
    fails("k: expected a number of kv heads that divides q's 4, got 3", function()
      attune.linear_attention(q, attune.zeros {2, 3, 30, 16}, v, {projection = w})
    end)
    fails("v: expected keys 30 to match k [2, 2, 30, 16], got [2, 2, 31, 16]", function()
      attune.linear_attention(q, k, attune.zeros {2, 2, 31, 16}, {projection = w})
    end)
    fails("k: f64 goes with f64 only: q is f64, got f32", function()
      attune.linear_attention(q:to "f64", k, v, {projection = w})
    end)
    fails("v: expected f32, bf16, f16 or f64, got i32", function()
      attune.linear_attention(q, k, v:to "i32", {projection = w})
    end)
    fails("d_o: expected [2, 4, 30, 12]", function()
      attune.linear_attention_backward(q, q, k, v, {projection = w})
    end)
    fails("features: expected an integer, got nil", function()
      attune.favor_projection {head_dim = 4}
    end)
    fails("head_dim: expected an integer of at least 1, got 0", function()
      attune.favor_projection {head_dim = 0, features = 4}
    end)
    fails("unknown option 'feature'", function()
      attune.favor_projection {head_dim = 4, feature = 4}
    end)
    fails("options: expected a table such as", function() attune.favor_projection() end)
    fails("query: expected true or false, got 1", function()
      attune.favor_features(q, {projection = w, query = 1})
    end)
    fails("projection: expected a tensor [features, 16] for favor+, got none", function()
      attune.favor_features(q)
    end)
    fails("x: expected [batch, heads, tokens, head_dim], got [32, 16]", function()
      attune.favor_features(w, {projection = w})
    end)
  end)
  it("refuses encodings that need the scores, and gives the reason", function()
    for name, options in pairs {alibi = {heads = 4}, t5 = {heads = 4, seed = 1}} do
      local made, pe = pcall(attune.position, name, options)
      if made then
        fails("got " .. name .. ", which adds to the scores: it needs the full score matrix, "
          .. "which linear attention never forms",
          function() attune.linear_attention(q, k, v, {projection = w, rotate = pe}) end)
        fails("it needs the full score matrix", function()
          attune.linear_state {kv_heads = 1, head_dim = 16, projection = w, rotate = pe}
        end)
      end
    end
  end)
end)

describe("the linear state", function()
  local function new(options)
    local all = {batch = 2, kv_heads = 2, head_dim = 16, v_head_dim = 12, projection = w}
    for name, x in pairs(options or {}) do all[name] = x end
    return attune.linear_state(all)
  end
  it("gives the last row of causal attention after each token", function()
    for _, rotate in ipairs {
      attune.position("none", {}), attune.position("rope", {head_dim = 32}),
    } do
      local state = new {rotate = rotate}
      local all = attune.linear_attention(q, k, v, {projection = w, causal = true, rotate = rotate})
      for i = 1, 30 do
        state:append(k:slice(3, i, i), v:slice(3, i, i))
        local o = state:attend(q:slice(3, i, i))
        expect.close(o, all:slice(3, i, i), 1e-5)
      end
      assert.same(30, state.length)
    end
  end)
  it("uses the same memory after many tokens as after one", function()
    local state = new()
    local nbytes = state.nbytes
    state:append(k, v)
    collectgarbage()
    collectgarbage()
    local before = attune.memory().bytes
    for _ = 1, 40 do state:append(k, v) end
    collectgarbage()
    collectgarbage()
    assert.is_true(attune.memory().bytes <= before)
    assert.same(nbytes, state.nbytes)
    assert.same(41 * 30, state.length)
  end)
  it("has fields, can be reset and closed, and keeps its encoding alive", function()
    local state = new {rotate = attune.position("rope", {head_dim = 32})}
    collectgarbage()
    collectgarbage()
    assert.same({2, 2, 16, 12, "favor+", 0}, {
      state.batch, state.kv_heads, state.head_dim, state.v_head_dim, state.features, state.length,
    })
    assert.equal(state, state:append(k, v))
    fails("options: expected none here", function() state:append(k, v, {counts = {1, 1}}) end)
    fails("options: expected none here", function() state:attend(q, {rotate = 1}) end)
    local first = state:attend(q:slice(3, 30, 30)):tolist()
    assert.same("linear state (favor+) of batch 2, 2 kv heads of 16: 30 tokens", tostring(state))
    assert.same(0, state:reset().length)
    assert.same(first, state:append(k, v):attend(q:slice(3, 30, 30)):tolist())
    assert.same("bf16", state:attend(q:slice(3, 30, 30):to "bf16").dtype)
    state:close()
    state:close()
    assert.same("closed linear state", tostring(state))
    fails("state: expected an open linear state, got a closed one", function()
      state:append(k, v)
    end)
  end)
  it("refuses wrong arguments with a message that names them", function()
    local state = new()
    fails("state: expected at least one token appended, got none", function()
      state:attend(q:slice(3, 1, 1))
    end)
    fails("k: expected [2, 2, tokens, 16] (batch, heads, tokens, head_dim), got [2, 4, 30, 16]",
      function() state:append(q, v) end)
    fails("v: expected [2, 2, 30, 12]", function() state:append(k, k) end)
    fails("k: expected a float dtype, got i32", function() state:append(k:to "i32", v) end)
    state:append(k, v)
    fails("q: expected [2, heads, 1, 16] (batch, heads, tokens, head_dim), got [2, 4, 30, 16]",
      function() state:attend(q) end)
    fails("q: expected a number of heads that 2 kv heads divide, got 3", function()
      state:attend(attune.zeros {2, 3, 1, 16})
    end)
    fails("unknown method or field 'lenght': did you mean 'length'", function()
      return state.lenght
    end)
    fails("unknown option 'capacity'", function() new {capacity = 3} end)
    fails("kv_heads: expected an integer, got nil", function()
      attune.linear_state {head_dim = 4}
    end)
    fails("head_dim: expected an integer, got nil", function()
      attune.linear_state {kv_heads = 4}
    end)
    fails("projection: expected a tensor [features, 4] for favor+, got none", function()
      attune.linear_state {kv_heads = 4, head_dim = 4}
    end)
    fails("epsilon: expected a number of at least 0, got -1", function() new {epsilon = -1} end)
    fails("state: expected a linear state, got 3", function() state.append(3, k, v) end)
    local pe = attune.position("rope", {head_dim = 32})
    local rotating = new {rotate = pe}
    pe:close()
    fails("rotate: expected an open positional encoding, got a closed one", function()
      rotating:append(k, v)
    end)
  end)
end)

describe("options of attention that need the scores", function()
  it("are refused, and the message gives the reason", function()
    local x = attune.randn({1, 1, 4, 4}, {seed = 1})
    for name, value in pairs {
      score = function(s) return s end,
      mask = function(at) return at.i:ge(at.j) end,
      softcap = 3,
      window = 2,
    } do
      for _, run in ipairs {
        function(o) attune.linear_attention(x, x, x, o) end,
        function(o) attune.linear_attention_backward(x, x, x, x, o) end,
      } do
        local ok, message = pcall(run, {features = "elu", [name] = value})
        assert.is_false(ok)
        assert.truthy(
          message:find(
            name
              .. ": linear attention never forms the scores q . k that it would %a+; leave it "
                .. "out, or use attune.attention"
          ),
          message
        )
      end
    end
  end)
end)
