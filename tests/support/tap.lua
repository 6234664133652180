--- Reads the TAP (Test Anything Protocol) that a suite printed: cmocka puts the plan "1..N" before
--- its results, busted behind them. Whatever does not fit is a failure: a suite that ended early, a
--- plan that does not match, results out of order, an exit status without a failed test.
local tap = {}

--- text: what the suite printed. status: its exit status.
--- Returns {passed, failed, skipped, cases = {{name, outcome, detail}}, problems = {text}}; failed
--- counts the problems too.
function tap.read(text, status)
  local cases, problems = {}, {}
  local planned, count = nil, 0 -- of the group that is open; a C program may run several groups
  local function problem(...) problems[#problems + 1] = string.format(...) end

  local function close_group()
    if not planned and count > 0 then
      problem("%d results without a plan: the suite ended early", count)
    elseif planned and planned ~= count then
      problem("%d tests planned, %d results", planned, count)
    end
    planned, count = nil, 0
  end

  local function plan(n)
    if planned then close_group() end
    planned = n
    if count > 0 then close_group() end
  end

  local function result(passed, number, rest)
    count = count + 1
    if number ~= count then
      problem("result %d where result %d was expected: %s", number, count, rest)
      count = number
    end
    local skipped = rest:find "# [Ss][Kk][Ii][Pp]"
    cases[#cases + 1] = {
      name = rest:gsub("^ *%- *", ""):gsub("^ *# *", ""),
      outcome = skipped and "skipped" or passed and "passed" or "failed",
      detail = {},
    }
  end

  for line in text:gmatch "[^\r\n]+" do
    local negated, number, rest = line:match "^(n?o?t? ?)ok (%d+)(.*)$"
    if number and (negated == "" or negated == "not ") then
      result(negated == "", tonumber(number), rest)
    elseif line:find "^1%.%.%d+%s*$" then
      plan(tonumber(line:match "%d+%s*$"))
    elseif line:find "^Bail out!" then
      problem("%s", line)
    elseif #cases > 0 then
      table.insert(cases[#cases].detail, line)
    end
  end
  close_group()

  local counts = {passed = 0, failed = 0, skipped = 0}
  for _, case in ipairs(cases) do counts[case.outcome] = counts[case.outcome] + 1 end
  if #cases == 0 then problem "no test ran" end
  if status ~= 0 and counts.failed + #problems == 0 then
    problem("exit status %d after the last test", status)
  end
  return {
    passed = counts.passed,
    failed = counts.failed + #problems,
    skipped = counts.skipped,
    cases = cases,
    problems = problems,
  }
end

local entities = {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["\""] = "&quot;"}
-- XML 1.0 has no way to write most control characters.
local function escape(text)
  return (text:gsub("[&<>\"]", entities):gsub("[\0-\8\11\12\14-\31]", "?"))
end

--- The suite as a JUnit file's text.
function tap.junit(suite, read)
  local out = {}
  local function add(...) out[#out + 1] = string.format(...) end
  add('<?xml version="1.0" encoding="UTF-8"?>')
  add(
    '<testsuite name="%s" tests="%d" failures="%d" skipped="%d">',
    escape(suite), #read.cases + #read.problems, read.failed, read.skipped
  )
  local function testcase(name, inner)
    add('  <testcase classname="%s" name="%s">%s</testcase>', escape(suite), escape(name), inner)
  end
  for _, case in ipairs(read.cases) do
    local detail = escape(table.concat(case.detail, "\n"))
    testcase(
      case.name,
      case.outcome == "failed" and "<failure>" .. detail .. "</failure>"
        or case.outcome == "skipped" and "<skipped/>"
        or ""
    )
  end
  for _, text in ipairs(read.problems) do
    testcase("the suite as a whole", "<failure>" .. escape(text) .. "</failure>")
  end
  add "</testsuite>"
  return table.concat(out, "\n") .. "\n"
end

return tap
