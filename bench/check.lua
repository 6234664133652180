--- make bench-check: this tree against an earlier one (REF, the commit that bench/RESULTS.md was
--- made at), both builds running the same cases in turns. What got slower
-- is named: the median of the rounds' ratios is off by more than 3% and three rounds of four agree.
-- Exit 1 then.
--
--     lua5.4 bench/check.lua COMMAND-BEFORE COMMAND-NOW [--rounds N] [PATTERN ..]        COMMAND: a
-- build's attune
package.path = "./?.lua;" .. package.path
local uv = require "luv"
local cases = require "bench.cases"
local stats = require "attune.results.statistics"

local commands, count, patterns = {arg[1], arg[2]}, 9, {}
do
  local i = 3
  while arg[i] do
    if arg[i] == "--rounds" then
      count, i = assert(math.tointeger(tonumber(arg[i + 1])), "--rounds: expected a number"), i + 1
    else patterns[#patterns + 1] = arg[i] end
    i = i + 1
  end
end

-- A process of one build that answers with seconds.
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
    if case.name:find(pattern) then return true end
  end
  return false
end

local before, now = start(commands[1]), start(commands[2])
local worse = 0
print(("%-24s %10s %22s"):format("case", "before/now", "quartiles"))
for _, case in ipairs(cases.cases) do
  if wanted(case) then
    local ratios = {}
    for round = 1, count do
      local a, b
      -- who goes first changes from round to round
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
print(worse == 0 and "nothing got slower" or ("%d got slower"):format(worse))
os.exit(worse == 0 and 0 or 1)
