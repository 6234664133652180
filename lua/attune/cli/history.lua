local files = require "attune.util.files"
local folder = require "attune.cli.folder"
local history = require "attune.results.history"
local json = require "attune.util.json"
local output = require "attune.cli.output"
local store = require "attune.results.store"
local text = require "attune.util.text"

local command = {summary = "show how values changed over several folders of one experiment"}

function command.options(parser)
  parser:argument("dirs", "folders of results, or folders that hold such; the oldest comes first")
    :args "+"
    :convert(folder)
  parser:option("--metric", "only this metric"):argname "M"
  parser:option("--json", "write the history as JSON to FILE; - is standard output, without a "
    .. "table"):argname "FILE"
end

local function say(message) output.complain("attune history", message) end

local function commit_of(results)
  local run = results.provenance[#results.provenance] or {}
  if not (run.git and run.git.commit) then return "" end
  return run.git.commit:sub(1, 12) .. (run.git.dirty and " with changes" or "")
end

local function time_of(results)
  local run = results.provenance[#results.provenance] or {}
  return run.time or ""
end

local function series_title(h, series)
  local parts = {}
  for i, name in ipairs(h.parameters) do
    parts[i] = ("%s %s"):format(name, text.plain(series.parameters[name]))
  end
  if #parts == 0 then return series.metric end
  return ("%s (%s)"):format(series.metric, table.concat(parts, ", "))
end

local function interval(value, unit)
  if not value.lo then return "-" end
  return ("%s to %s"):format(text.quantity(value.lo, unit), text.quantity(value.hi, unit))
end

local function ratio(c)
  if not c or not c.centre then return "-" end
  return (c.kind == "ratio" and "%.4f" or "%+.3g"):format(c.centre)
end

-- Whether entries were measured on more than one processor.
local function several_processors(series)
  local first = series.entries[1].cpu
  for _, entry in ipairs(series.entries) do
    if entry.cpu ~= first then return true end
  end
  return false
end

local function print_series(h, series)
  output.line(series_title(h, series))
  local with_cpu = several_processors(series)
  local columns, rows = {{"folder"}, {"time"}, {"commit"}}, {}
  if with_cpu then columns[#columns + 1] = {"processor"} end
  for _, title in ipairs {series.metric, "95% interval", "ratio", "verdict"} do
    columns[#columns + 1] = {title, right = title == series.metric or title == "ratio"}
  end
  for i, entry in ipairs(series.entries) do
    local results = h.folders[entry.folder]
    local row = {results.dir, time_of(results), commit_of(results)}
    if with_cpu then row[#row + 1] = entry.cpu or "several" end
    for _, cell in ipairs {
      text.quantity(entry.value.centre, series.unit), interval(entry.value, series.unit),
      ratio(entry.comparison), entry.verdict or "-",
    } do row[#row + 1] = cell end
    rows[i] = row
  end
  for _, line in ipairs(text.columns(columns, rows)) do output.line(line) end
  output.line ""
end

local function plain(h)
  local folders, all = json.list(), json.list()
  for i, results in ipairs(h.folders) do
    local run = results.provenance[#results.provenance] or {}
    folders[i] = {dir = results.dir, time = run.time, git = run.git, cpu = run.cpu}
  end
  for i, series in ipairs(h.series) do
    local entries = json.list()
    for k, entry in ipairs(series.entries) do
      local c = entry.comparison or {}
      entries[k] = {
        folder = entry.folder, cpu = entry.cpu, value = entry.value.centre, lo = entry.value.lo,
        hi = entry.value.hi, kind = entry.value.kind, rounds = entry.value.n,
        verdict = entry.verdict, [c.kind or "ratio"] = c.centre, ratio_lo = c.lo, ratio_hi = c.hi,
        p_adjusted = entry.p,
      }
    end
    all[i] = {
      parameters = series.parameters, metric = series.metric, unit = series.unit,
      better = series.better, entries = entries,
    }
  end
  return {folders = folders, series = all}
end

-- All folders of the arguments, each once.
local function read_all(paths)
  local list, seen = {}, {}
  for _, path in ipairs(paths) do
    for _, dir in ipairs(history.folders(path, files.list)) do
      if not seen[dir] then
        seen[dir] = true
        local results, why = store.read(dir)
        if not results then return nil, why end
        list[#list + 1] = results
      end
    end
  end
  return list
end

function command.run(args)
  local h
  local list, why = read_all(args.dirs)
  if list then h, why = history.of(list, {metric = args.metric}) end
  if not h then
    say(why)
    return 2
  end
  if args.json then
    local content = json.encode(plain(h)) .. "\n"
    if args.json == "-" then
      output.write(content)
      return 0
    end
    local ok, failed = files.save(args.json, content)
    if not ok then
      say(failed)
      return 2
    end
  end
  for _, series in ipairs(h.series) do print_series(h, series) end
  output.line("Each ratio is to the folder above of the same processor; verdicts as in attune "
    .. "compare.")
  return 0
end

return command
