--- make bench-check: compares this build with a build of an earlier commit (REF, or the one that
--- bench/RESULTS.md names).
--
-- Both builds run the same cases in alternation. A case is slower when the median of the rounds'
-- ratios is below 0.97 and so is the ratio of three rounds of four below 1. The exit status is then
-- 1.
package.path = "./?.lua;" .. package.path
local uv = require "luv"
local arguments = require "bench.arguments"
local cases = require "bench.cases"
local stats = require "attune.results.statistics"

local args = arguments.read("bench/check.lua", "compares two builds", function(parser)
  parser:argument("before", "the attune command of the earlier build")
  parser:argument("now", "the attune command of this build")
end)
local count, patterns = args.rounds, args.patterns

-- Starts a process of one build: ask(case) gives its seconds.
local function start(command)
  local input, output, buffer = uv.new_pipe(false), uv.new_pipe(false), ""
  local handle = assert(
    uv.spawn(
      "sh",
      {
        args = {"-c", ("eval \"$('%s' env)\"; exec lua5.4 bench/serve.lua"):format(command)},
        stdio = {input, output, 2},
      },
      function() end
    )
  )
  output:read_start(function(_, chunk) buffer = buffer .. (chunk or "ended\n") end)
  return {
    ask = function(name)
      input:write(name .. "\n")
      while not buffer:find "\n" do uv.run "once" end
      local line, rest = buffer:match "([^\n]*)\n(.*)"
      buffer = rest
      return tonumber(line) or error(("%s: %s: %s"):format(command, name, line), 0)
    end,
    stop = function()
      input:shutdown()
      handle:kill "sigterm"
    end,
  }
end

local function wanted(case)
  if #patterns == 0 then return true end
  for _, pattern in ipairs(patterns) do
    if case.name:find(pattern, 1, true) then return true end
  end
  return false
end

local before, now = start(args.before), start(args.now)
local worse = 0
print(("%-24s %10s %22s"):format("case", "before/now", "quartiles"))
for _, case in ipairs(cases.cases) do
  if wanted(case) then
    local ratios = {}
    for round = 1, count do
      local a, b
      -- The order alternates, as the second may find caches or a clock that the first left.
      if round % 2 == 1 then
        a, b = before.ask(case.name), now.ask(case.name)
      else b, a = now.ask(case.name), before.ask(case.name) end
      ratios[round] = a / b
    end
    local median = stats.median(ratios)
    local low, high = stats.quantile(ratios, 0.25), stats.quantile(ratios, 0.75)
    local verdict = ""
    if median < 0.97 and high < 1 then
      verdict = "SLOWER"
    elseif median > 1.03 and low > 1 then
      verdict = "faster"
    end
    if verdict == "SLOWER" then worse = worse + 1 end
    print(("%-24s %10.3f %10.3f to %8.3f  %s"):format(case.name, median, low, high, verdict))
    io.stdout:flush()
  end
end
before.stop()
now.stop()
print(worse == 0 and "No case is slower." or ("%d cases are slower."):format(worse))
os.exit(worse == 0 and 0 or 1)
