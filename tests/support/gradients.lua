--- What specs of gradients share: inputs in f64, and the test of one operation.
local attune = require "attune"
local assert = require "luassert"
local expect = require "tests.support.expect"

local gradients = {}

local seed = 0
function gradients.normal(...)
  seed = seed + 1
  return attune.randn({...}, {dtype = "f64", seed = seed})
end
function gradients.positive(...)
  seed = seed + 1
  return attune.uniform({...}, {dtype = "f64", seed = seed, low = 0.5, high = 2})
end

-- What a function of several tensors gives, as one number with gradients in every result.
local function loss_of(fn, inputs)
  local loss
  for i, result in ipairs {fn(table.unpack(inputs))} do
    local flat = result:contiguous():view(-1)
    local options = {low = 0.5, high = 1.5, seed = i, dtype = flat.dtype}
    local weights = attune.uniform(flat.shape, options)
    local part = (flat * weights):sum():to "f64"
    loss = loss and loss + part or part
  end
  return loss
end

local function gradients_in(dtype, fn, inputs)
  local copies, list = {}, {}
  for i, x in ipairs(inputs) do copies[i] = x:to(dtype):requires_grad() end
  loss_of(fn, copies):backward()
  for i, x in ipairs(copies) do list[i] = x.grad end
  return list
end

-- The largest difference in 16 bits: some units of the last place (2^-8 in bf16) of what is summed.
local BF16 = 0.06

--- The gradients of fn agree with differences in f64, and those in f32 and bf16 with them.
---@param inputs attune.Tensor[] in f64
function gradients.check(fn, inputs)
  local ok, message, worst = attune.gradcheck(fn, inputs)
  assert.is_true(ok, ("%s (%g)"):format(message, worst))
  local exact, fast = gradients_in("f64", fn, inputs), gradients_in("f32", fn, inputs)
  for i = 1, #inputs do
    assert.same(exact[i].shape, fast[i].shape)
    assert.same(inputs[i].shape, fast[i].shape)
    assert.same("f32", fast[i].dtype)
    local difference = expect.relative_difference(fast[i], exact[i])
    assert.is_true(difference < 2e-5, ("f32, input %d: %g"):format(i, difference))
  end
  local short = gradients_in("bf16", fn, inputs)
  for i = 1, #inputs do
    assert.same("bf16", short[i].dtype)
    local difference = expect.relative_difference(short[i], exact[i])
    assert.is_true(difference < BF16, ("bf16, input %d: %g"):format(i, difference))
  end
end

return gradients
