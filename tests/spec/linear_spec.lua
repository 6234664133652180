local attune = require "attune"
local golden = require "tests.support.golden"

local function fails(pattern, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(pattern, 1, true), tostring(message))
end

local kinds = {softmax = "favor+", relu = "relu"}

describe("golden linear attention", function()
  for _, name in ipairs(golden.files "linear") do
    it(name, function()
      local case, t = golden.load("linear/" .. name)
      local p, bounds = case.params, case.bounds
      local options = {causal = p.causal, features = kinds[p.kernel], projection = t.projection, epsilon = p.epsilon}
      if p.rotate_features then options.rotate = attune.position("rope", {head_dim = p.features, base = p.base, pairing = p.pairing}) end
      local function check(got, what)
        local d = golden.difference(got, t[what])
        assert.is_true(d <= bounds[what], ("%s: %g, bound %g"):format(what, d, bounds[what]))
      end
      check(attune.linear_attention(t.q, t.k, t.v, options), "o")
      if p.kernel == "softmax" then
        check(attune.favor_features(t.q, {projection = t.projection, query = true, epsilon = p.epsilon}), "fq")
        check(attune.favor_features(t.k, {projection = t.projection, epsilon = p.epsilon}), "fk")
      end
      if t["do"] then
        local dq, dk, dv = attune.linear_attention_backward(t["do"], t.q, t.k, t.v, options)
        check(dq, "dq")
        check(dk, "dk")
        check(dv, "dv")
      end
      local wide = {}
      for _, x in ipairs {"q", "k", "v"} do wide[x] = t[x]:to "f64" end
      check(attune.linear_attention(wide.q, wide.k, wide.v, options):to "f32", "o")
      local state = attune.linear_state {batch = t.q.shape[1], kv_heads = t.k.shape[2], head_dim = t.q.shape[4], features = options.features, projection = t.projection, rotate = options.rotate, epsilon = p.epsilon}
      local last = t.q.shape[3]
      state:append(t.k:slice(3, 1, 5), t.v:slice(3, 1, 5)):append(t.k:slice(3, 6, last), t.v:slice(3, 6, last))
      assert.is_true(golden.difference(state:attend(t.q:slice(3, last, last)), t.o:slice(3, last, last)) <= bounds.o)
    end)
  end
end)
