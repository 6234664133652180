--- Options of models and layers: what is refused, what is repeated, and where errors point.
local attune = require "attune"
local expect = require "tests.support.expect"
local nn = require "attune.nn"

local ids = {{1, 2, 3, 4}}

local function with(more)
  local o = {vocab = 8, d_model = 8, layers = 2, heads = 2, seed = 1}
  for name, value in pairs(more or {}) do o[name] = value end
  return o
end

local function refused(text, more)
  return expect.fails_with(text, function() nn.Decoder(with(more)) end)
end

describe("an encoding that is added to the embeddings", function()
  it("is refused in an entry of the pattern, unless the model has it", function()
    for _, name in ipairs {"learned", "sinusoidal"} do
      refused("pattern[1].position: expected an encoding of one layer, got '" .. name .. "'",
        {context = 8, pattern = {{position = name}}})
      refused("pattern[2].position", {context = 8, pattern = {{}, {position = name}}})
      local own = {position = name, context = 8, pattern = {{position = name}, {window = 2}}}
      local model = nn.Decoder(with(own))
      model:loss(ids, ids):backward()
      for parameter, p in pairs(model:parameters()) do assert.truthy(p.grad, parameter) end
      own.pattern = {{}, {window = 2}}
      expect.close(nn.Decoder(with(own)):forward(ids), model:forward(ids), 0)
    end
    refused("pattern[1].sinusoidal", {
      position = "sinusoidal", pattern = {{position = "sinusoidal", sinusoidal = {scale = 0.5}}},
    })
  end)

  it("may be beside others of the layers", function()
    local model = nn.Decoder(with {
      position = "learned", context = 8, pattern = {{position = "rope"}, {position = "none"}},
    })
    model:loss(ids, ids):backward()
    assert.truthy(model:parameters()["position.weight"].grad)
  end)

  it("makes no table that no layer uses", function()
    local model = nn.Decoder(with {position = "t5", pattern = {{position = "none"}}})
    assert.is_nil(model:state()["position.table"])
    assert.equal(model:count(), (nn.count(with {
      position = "t5", pattern = {{position = "none"}},
    })))
  end)
end)
