--- make bench-check: compares this build with a build of an earlier commit (REF, or the one that
--- bench/RESULTS.md names).
--
-- Both builds run the same cases in alternation. Each case is a comparison of pairs of rounds,
-- judged and printed as `attune compare --paired` does, but a change below 3% is none. The exit
-- status is 1 when a case is worse.
package.path = "./?.lua;" .. package.path
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

-- The seconds of a case in a new process of one build. A process keeps the pages that it got, whose
-- place is worth up to a tenth of a time, so each round draws them again.
local function seconds(command, name)
  local pipe = assert(io.popen(
    ("eval \"$('%s' env)\"; exec lua5.4 bench/serve.lua '%s'"):format(command, name)
  ))
  local line = pipe:read "l"
  pipe:close()
  return tonumber(line) or error(("%s: %s: %s"):format(command, name, line or "ended"), 0)
end

local function wanted(case)
  if #patterns == 0 then return true end
  for _, pattern in ipairs(patterns) do
    if case.name:find(pattern, 1, true) then return true end
  end
  return false
end

local threshold = 0.03

local before, now = args.before, args.now
local rows = {}
for _, case in ipairs(cases.cases) do
  if wanted(case) then
    local values = {a = {}, b = {}}
    for round = 1, count do
      local a, b
      -- The order alternates, as the second may find caches or a clock that the first left.
      if round % 2 == 1 then
        a, b = seconds(before, case.name), seconds(now, case.name)
      else
        b, a = seconds(now, case.name), seconds(before, case.name)
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
