--- make bench-check: compares this build with a build of an earlier commit (REF, or the one that
--- bench/RESULTS.md names).
--
-- Both builds run the same cases in alternation. Each case is a comparison of pairs of rounds,
-- judged and printed as `attune compare --paired` does, but a change below 3% is none. The exit
-- status is 1 when a case is worse.
package.path = "./?.lua;" .. package.path
local uv = require "luv"
local arguments = require "bench.arguments"
local cases = require "bench.cases"
local compare = require "attune.results.compare"
local print_table = require "attune.cli.compare".print_table
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

local threshold = 0.03

local before, now = start(args.before), start(args.now)
local rows = {}
for _, case in ipairs(cases.cases) do
  if wanted(case) then
    local values = {a = {}, b = {}}
    for round = 1, count do
      local a, b
      -- The order alternates, as the second may find caches or a clock that the first left.
      if round % 2 == 1 then
        a, b = before.ask(case.name), now.ask(case.name)
      else
        b, a = now.ask(case.name), before.ask(case.name)
      end
      values.a[round], values.b[round] = a, b
    end
    rows[#rows + 1] = {
      parameters = {case = case.name}, metric = "seconds", unit = "s", better = "lower",
      a = stats.centre(values.a), b = stats.centre(values.b), values = values,
    }
    io.stderr:write(("%s: now / before %.3f\n"):format(case.name,
      rows[#rows].b.centre / rows[#rows].a.centre))
  end
end
before.stop()
now.stop()
if #rows == 0 then
  io.stderr:write("bench-check: no case matches ", table.concat(patterns, " "), "\n")
  os.exit(2)
end
compare.judge(rows, {paired = true, threshold = threshold})
print_table {rows = rows, parameters = {"case"}, alpha = stats.alpha}
local counts = {worse = 0, ["cannot tell"] = 0}
for _, row in ipairs(rows) do counts[row.verdict] = (counts[row.verdict] or 0) + 1 end
print(("%d slower, %d cannot be told, of %d cases."):format(counts.worse, counts["cannot tell"],
  #rows))
os.exit(counts.worse == 0 and 0 or 1, true)
