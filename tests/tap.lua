--- lua5.4 tests/tap.lua FILE STATUS SUITE - judges the TAP output in FILE of a suite that ended
--- with STATUS. Prints "PASSED FAILED SKIPPED" on the first line, then what failed. tests/run
--- reads it. With JUNIT=folder in the environment the suite's JUnit file goes there.
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local tap = require "support.tap"

local file = assert(io.open(arg[1], "rb"))
local read = tap.read(file:read "a", math.tointeger(tonumber(arg[2])))
file:close()

print(read.passed, read.failed, read.skipped)
for _, case in ipairs(read.cases) do
  if case.outcome == "failed" then
    print("  failed: " .. case.name)
    for n = 1, math.min(#case.detail, 40) do print("    " .. case.detail[n]) end
  end
end
for _, problem in ipairs(read.problems) do print("  " .. problem) end

local folder = os.getenv "JUNIT"
if folder and folder ~= "" then
  local out = assert(io.open(folder .. "/" .. arg[3]:gsub("[^%w_.-]", "_") .. ".xml", "w"))
  out:write(tap.junit(arg[3], read))
  out:close()
end
