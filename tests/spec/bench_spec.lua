--- bench: the figures name cases that exist, and the pictures can be drawn.
local files = require "attune.util.files"
local uv = require "luv"

describe("the benchmarks", function()
  local path = package.path
  setup(function() package.path = "./?.lua;" .. path end)
  teardown(function() package.path = path end)

  it("have a case and a ceiling for every figure", function()
    local cases, ceilings = require "bench.cases", require "bench.ceilings"
    local known = {roofline = true}
    for _, name in ipairs(ceilings.names) do known[name] = ceilings.list[name] ~= nil end
    for _, case in ipairs(cases.cases) do
      assert.is_nil(known[case.name], case.name)
      known[case.name] = true
    end
    for _, figure in ipairs(cases.figures) do
      assert.is_true(known[figure.case], figure[1])
      assert.is_true(figure.ratio ~= nil and figure.target ~= nil or known[figure.of], figure[1])
      for _, name in ipairs(figure.needs or {}) do assert.is_true(known[name], figure[1]) end
    end
  end)

  it("draw a roofline and the time against tokens", function()
    local function sample(seconds)
      return {{seconds = seconds, flops = 1e9, bytes = 1e8, ceiling = {read = 3e10, fma = 1e11}}}
    end
    local cases, samples = {
      {name = "f32 a", point = "prefill f32, D 128", curve = "prefill:tiled", tokens = 256},
      {name = "f32 b", curve = "prefill:tiled", tokens = 512},
      {name = "f32 c", curve = "decode:8 kv heads", tokens = 512},
      {name = "f32 d", curve = "decode:8 kv heads", tokens = 1024},
    }, {["f32 a"] = sample(0.1), ["f32 b"] = sample(0.2), ["f32 c"] = sample(0.1),
        ["f32 d"] = sample(0.3)}
    local folder = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/attune-bench-XXXXXX")) .. "/"
    require "bench.pictures".draw(folder, cases, samples)
    for _, name in ipairs {"roofline", "time"} do
      local svg = files.read(folder .. name .. ".svg")
      assert.truthy(svg and svg:find("</svg>", 1, true), name)
      assert.truthy(files.read(folder .. name .. ".png"), name)
      os.remove(folder .. name .. ".svg")
      os.remove(folder .. name .. ".png")
    end
    assert.truthy(uv.fs_rmdir(folder))
  end)
end)
