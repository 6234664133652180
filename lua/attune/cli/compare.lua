local compare = require "attune.results.compare"
local files = require "attune.util.files"
local folder = require "attune.cli.folder"
local json = require "attune.util.json"
local output = require "attune.cli.output"
local store = require "attune.results.store"
local text = require "attune.util.text"
local sorted_keys = require "attune.util.tables".sorted_keys

local command = {
  summary = "compare two folders of results, point by point: ratios, intervals, verdicts",
}

local function parse_threshold(s)
  local x = tonumber(s)
  if x and x >= 0 and x < 1 then return x end
  return nil, ("--threshold: expected a number from 0 to 1, such as 0.03, got '%s'"):format(s)
end

function command.options(parser)
  parser:argument("a", "a folder of results, such as those before a change"):convert(folder)
  parser:argument("b", "a folder of results to compare with it"):convert(folder)
  parser:option("--by", "one comparison per value of this parameter, or of several: p,q")
    :argname "P"
  parser:option("--metric", "only this metric"):argname "M"
  parser:flag("--paired", "A and B were measured alternately: compare them round by round")
  parser:option("--threshold", "a change below this fraction is none; 0.01 by default")
    :argname "X"
    :convert(parse_threshold)
  parser:option("--json", "write the comparison as JSON to FILE; - is standard output, without a "
    .. "table"):argname "FILE"
  parser:option("--plot", "draw the ratios into DIR/plots, one figure per metric")
    :argname "DIR"
    :convert(folder)
end

local function split(words)
  if not words then return nil end
  local list = {}
  for word in words:gmatch "[^,]+" do list[#list + 1] = word end
  return #list > 0 and list or nil
end

-- ---- the table ----------------------------------------------------------------------------------

local bar_width = 21

-- How far intervals reach from 1, as a logarithm: the half width of the bars.
local function reach(rows)
  local max = math.log(1.02)
  for _, row in ipairs(rows) do
    local c = row.comparison
    if c.kind == "ratio" and c.lo then
      -- An interval wider than a factor of ten says little: it is cut.
      max = math.max(max, math.min(math.log(10), math.abs(math.log(c.centre)) * 1.2))
      for _, end_of in ipairs {c.lo, c.hi} do
        max = math.max(max, math.min(math.log(10), math.abs(math.log(end_of))))
      end
    end
  end
  return max
end

-- An interval as letters, 1 in the middle: "     |  --o--     ".
local function bar(c, max)
  if c.kind ~= "ratio" or not c.centre then return "" end
  local cells, middle = {}, (bar_width + 1) // 2
  local function cell_of(x)
    local at = middle + math.floor(math.log(x) / max * (middle - 1) + 0.5)
    return math.max(1, math.min(bar_width, at))
  end
  for i = 1, bar_width do cells[i] = " " end
  cells[middle] = "|"
  if c.lo then
    for i = cell_of(c.lo), cell_of(c.hi) do cells[i] = "-" end
  end
  cells[cell_of(c.centre)] = "o"
  return table.concat(cells)
end

local function figure(c, x)
  if not x then return "-" end
  return c.kind == "ratio" and ("%.4f"):format(x) or ("%+.3g"):format(x)
end

local function interval(c)
  if not c.lo then return "-" end
  return ("%s to %s"):format(figure(c, c.lo), figure(c, c.hi))
end

local max_named_rounds = 10000

-- "cannot tell: 34 rounds would do"
local function verdict_text(row, word)
  local c = row.comparison
  if row.verdict ~= "cannot tell" then return row.verdict end
  if not c.centre then return "cannot tell: a value is not finite" end
  if not c.rounds_needed then return "cannot tell" end
  if c.rounds_needed > max_named_rounds then
    return ("cannot tell: more than %d %ss would do"):format(max_named_rounds, word)
  end
  local most = math.max(c.n_a, c.n_b)
  -- Rounds that should do did not: what was seen lies between no change and the one looked for.
  local needed = math.max(c.rounds_needed, most + 1)
  return ("cannot tell: about %d %ss would do"):format(needed, word)
end

local function parameters_text(parameters)
  local names, parts = sorted_keys(parameters), {}
  for i, name in ipairs(names) do
    parts[i] = ("%s %s"):format(name, text.plain(parameters[name]))
  end
  return table.concat(parts, ", ")
end

-- "results/before (2026-01-31T12:00:00Z, commit 0123456789ab with changes)"
local function folder_text(results)
  local run, parts = results.provenance[#results.provenance], {}
  if run then
    parts[#parts + 1] = run.time
    if run.git and run.git.commit then
      local changes = run.git.dirty and " with changes" or ""
      parts[#parts + 1] = ("commit %s%s"):format(run.git.commit:sub(1, 12), changes)
    end
  end
  return results.dir .. (#parts > 0 and (" (%s)"):format(table.concat(parts, ", ")) or "")
end

--- Prints the rows of a report as a table.
---@param report {rows: attune.CompareRow[], parameters: string[], alpha: number, word: string?}
function command.print_table(report)
  local word = report.word or "round"
  local with_cpu, columns, rows = false, {}, {}
  for _, row in ipairs(report.rows) do with_cpu = with_cpu or row.cpu ~= nil end
  for _, name in ipairs(report.parameters) do columns[#columns + 1] = {name} end
  if with_cpu then columns[#columns + 1] = {"processor"} end
  for _, title in ipairs {"metric", "A", "B", "B / A"} do
    columns[#columns + 1] = {title, right = title ~= "metric"}
  end
  columns[#columns + 1] = {("%g%% interval"):format(100 * (1 - report.alpha))}
  columns[#columns + 1] = {"1 is |"}
  columns[#columns + 1] = {"verdict"}
  local max = reach(report.rows)
  for i, row in ipairs(report.rows) do
    local c, cells = row.comparison, {}
    for _, name in ipairs(report.parameters) do
      cells[#cells + 1] = text.plain(row.parameters[name])
    end
    if with_cpu then cells[#cells + 1] = row.cpu or "" end
    for _, cell in ipairs {
      row.metric, text.quantity(row.a.centre, row.unit), text.quantity(row.b.centre, row.unit),
      figure(c, c.centre), interval(c), bar(c, max), verdict_text(row, word),
    } do cells[#cells + 1] = cell end
    rows[i] = cells
  end
  for _, line in ipairs(text.columns(columns, rows)) do output.line(line) end
end

local verdicts = {"worse", "better", "differs", "same", "cannot tell"}

local function count(report)
  local counts = {}
  for _, name in ipairs(verdicts) do counts[name] = 0 end
  for _, row in ipairs(report.rows) do counts[row.verdict] = counts[row.verdict] + 1 end
  return counts
end

local max_shown_lost = 10

local function print_rest(report, counts)
  for i, point in ipairs(report.lost) do
    if i > max_shown_lost then
      output.line((".. and %d more that are no longer ok"):format(#report.lost - max_shown_lost))
      break
    end
    local reason = point.reason and ": " .. text.cut(point.reason:match "^[^\n]*", 200) or ""
    local what = parameters_text(point.parameters)
    output.line(("worse: %s: ok in A, %s in B%s"):format(what, point.status, reason))
  end
  if report.only_a > 0 then output.line(("%d points are only in A"):format(report.only_a)) end
  if report.only_b > 0 then output.line(("%d points are only in B"):format(report.only_b)) end
  for _, note in ipairs(report.notes) do output.line("differs: " .. note) end
  local parts = {}
  for _, name in ipairs(verdicts) do
    if counts[name] > 0 then parts[#parts + 1] = ("%d %s"):format(counts[name], name) end
  end
  if #report.lost > 0 then parts[#parts + 1] = ("%d no longer ok"):format(#report.lost) end
  output.line(table.concat(parts, ", ") .. ".")
end

local function method_text(report)
  local tests, order = {}, {}
  for _, row in ipairs(report.rows) do
    local test = row.comparison.test
    if test and not tests[test] then
      tests[test] = true
      order[#order + 1] = test
    end
  end
  if #order == 0 then return nil end
  return ("Tests: %s; false alarms among all %d comparisons: %g%% (Holm)."):format(
    table.concat(order, ", "), #report.rows, 100 * report.alpha)
end

-- ---- JSON ---------------------------------------------------------------------------------------

local function source_of(results)
  local run = results.provenance[#results.provenance] or {}
  return {dir = results.dir, name = results.name, time = run.time, git = run.git, cpu = run.cpu}
end

--- The report as the table that --json writes.
---@param report attune.CompareReport
function command.plain(report)
  local rows, lost, notes = json.list(), json.list(), json.list()
  for i, row in ipairs(report.rows) do
    local c = row.comparison
    rows[i] = {
      parameters = row.parameters, cpu = row.cpu, metric = row.metric, unit = row.unit,
      better = row.better, pairs = row.pairs, verdict = row.verdict, kind = c.kind,
      [c.kind] = c.centre, lo = c.lo, hi = c.hi, test = c.test, p = c.p, p_adjusted = row.p,
      rounds_a = c.n_a, rounds_b = c.n_b, rounds_needed = c.rounds_needed,
      a = row.a.centre, a_lo = row.a.lo, a_hi = row.a.hi, a_kind = row.a.kind,
      b = row.b.centre, b_lo = row.b.lo, b_hi = row.b.hi, b_kind = row.b.kind,
    }
  end
  for i, point in ipairs(report.lost) do lost[i] = point end
  for i, note in ipairs(report.notes) do notes[i] = note end
  return {
    a = source_of(report.a), b = source_of(report.b), alpha = report.alpha,
    paired = report.paired, counts = count(report), comparisons = rows, lost = lost,
    only_a = report.only_a, only_b = report.only_b, notes = notes,
  }
end

local function say(message) output.complain("attune compare", message) end

-- Writes JSON to a file or to standard output. Returns whether that worked.
local function write_json(target, value)
  local content = json.encode(value) .. "\n"
  if target == "-" then
    output.write(content)
    return true
  end
  local ok, why = files.save(target, content)
  if not ok then say(why) end
  return ok
end

local function draw(report, dir)
  local paths, why = files.make_folder(dir)
  if paths then paths, why = require "attune.plot.ratios".draw(report, dir) end
  if not paths then
    say(why)
    return false
  end
  output.warn("attune compare", why)
  return true
end

function command.run(args)
  local results = {}
  for _, side in ipairs {"a", "b"} do
    local why
    results[side], why = store.read(args[side])
    if not results[side] then
      say(why)
      return 2
    end
  end
  local report, why = compare.folders(results.a, results.b, {
    by = split(args.by), metric = args.metric, paired = args.paired or false,
    threshold = args.threshold,
  })
  if not report then
    say(why)
    return 2
  end
  local counts = count(report)
  local written = true
  if args.json then written = write_json(args.json, command.plain(report)) end
  if args.json ~= "-" then
    output.line("A: " .. folder_text(report.a))
    output.line("B: " .. folder_text(report.b))
    if #report.rows > 0 then command.print_table(report) end
    print_rest(report, counts)
    local method = method_text(report)
    if method then output.line(method) end
  end
  if args.plot then written = draw(report, args.plot) and written end
  if not written then return 2 end
  return (counts.worse > 0 or #report.lost > 0) and 1 or 0
end

return command
