--- How many rounds a report and a figure name (lua/attune/results/repeats.lua).
local repeats = require "attune.results.repeats"

describe("the number of rounds of results", function()
  local function of(...)
    local points = {}
    for i, count in ipairs {...} do
      points[i] = {status = count > 0 and "ok" or "failed", rounds = count}
    end
    return {repeats.rounds {points = points}}
  end
  it("is one number where points have as many, whatever failed", function()
    assert.same({"3", 3}, of(3, 3))
    assert.same({"3", 3}, of(3, 0))
    assert.same({"0", 0}, of())
  end)
  it("is the smallest and the largest where they differ", function()
    assert.same({"3 to 9", 9}, of(3, 9, 0, 5))
  end)
end)
