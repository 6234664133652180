--- bench: the figures name cases that exist, and a few cases run end to end, in shrunken form.
local run = require "tests.support.run"
local store = require "attune.results.store"

local script = "bench/kernels.lua"

local function bench(dir, options)
  return run.attune(("run %s --quick --out %s %s"):format(script, dir, options))
end

describe("the benchmarks", function()
  it("have a case for every figure", function()
    local experiment = assert(require "attune.experiment".load(script))
    local is_case, count = {}, 0
    for _, name in ipairs(experiment.grid.case) do
      assert.is_nil(is_case[name], name)
      is_case[name] = true
    end
    for _, claim in ipairs(experiment.claims) do
      assert.is_true(#claim.needs > 0, claim[1])
      for _, needed in ipairs(claim.needs) do
        assert.is_true(is_case[needed.case], claim[1])
        count = count + 1
      end
    end
    assert.is_true(count > 60)
  end)

  it("tell speeds as fractions of ceilings, and judge only the figures of the part", function()
    local dir = run.folder()
    local said, status = bench(dir,
      [[--rounds 3 --only 'tokens == 512 and (case == "decode-f32-g32" or ]]
        .. [[case == "decode-f32-g32-rope" or case == "block-map")']])
    assert.same(0, status, said)
    local results = assert(store.read(dir))
    assert.same(3, #results.points)
    assert.same(3, #results.claims)
    for _, point in ipairs(results.points) do
      local m = point.metrics
      if point.parameters.case == "block-map" then
        assert.is_nil(m.fma)
        assert.is_true(m.seconds.centre > 0)
      else
        assert.is_true(m.fma.centre > 0 and m.read.centre > 0)
        -- A round that exceeds the peak has no fraction, and a warning.
        local rounds = m.of_fma and #m.of_fma.values or 0
        for i = 1, rounds do
          assert.is_true(m.of_fma.values[i] > 0 and m.of_fma.values[i] <= 1)
        end
        local void = 0
        for _, warning in ipairs(results.warnings) do
          if warning:find(point.parameters.case .. ": round", 1, true) then void = void + 1 end
        end
        assert.same(3, rounds + void)
      end
    end
    run.remove(dir)
  end)

  it("compare two builds in alternation; a build that is compared with itself has no lost point",
    function()
      local dir = run.folder()
      local command = (os.getenv "ATTUNE_BUILD_DIR" or "build") .. "/attune"
      local said, status = bench(dir,
        ("--rounds 2 --only 'case == \"block-map\"' --against %s"):format(command))
      assert.same(0, status, said)
      local order = {}
      for side, round in said:gmatch "%] (%a+): case block%-map[^\n]*%(round (%d)%)" do
        order[#order + 1] = side .. round
      end
      assert.same({"before1", "now1", "now2", "before2"}, order)
      said, status = run.attune(
        ("compare %s/before %s/now --paired --metric seconds --threshold 0.9"):format(dir, dir))
      assert.truthy(said:find("block-map", 1, true) or said:find("seconds", 1, true), said)
      assert.is_true(status < 2, said)
      run.remove(dir)
    end)
end)
