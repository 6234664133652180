local progress = require "attune.experiment.progress"

-- What a progress line writes to a terminal of `columns` columns.
local function drawn(columns, what)
  local bar = progress(10)
  bar.terminal, bar.tty = true, {get_winsize = function() return columns end, close = print}
  local before, said = io.stderr, {}
  rawset(io, "stderr", {write = function(_, s) said[#said + 1] = s end, flush = function() end})
  bar:begin(what)
  bar:say(what)
  rawset(io, "stderr", before)
  return said
end

describe("the progress line", function()
  it("fits terminals of every width", function()
    for columns = 1, 120 do
      local line = drawn(columns, ("a long description "):rep(10))[1]:gsub("^\r\27%[K", "")
      assert.is_true(utf8.len(line) < math.max(columns, 2), columns .. ": " .. line)
    end
    assert.truthy(drawn(15, "x")[1]:find "0/10")
    -- A terminal that does not say its width counts as 80 columns.
    assert.is_true(utf8.len(drawn(0, ("x"):rep(200))[1]) > 70)
  end)
  it("shows no control characters but its own", function()
    for _, text in ipairs(drawn(80, "a\27[2Jb\7")) do
      local rest = text:gsub("^\r\27%[K", ""):gsub("\n$", "")
      assert.is_nil(rest:find "%c", rest)
    end
  end)
end)
