local files = require "attune.util.files"
local folder = require "attune.cli.folder"
local json = require "attune.util.json"
local output = require "attune.cli.output"
local store = require "attune.results.store"
local text = require "attune.util.text"
local uv = require "luv"

local export = {summary = "write results as one table, in CSV or JSON: one row per point"}

function export.options(parser)
  parser:argument("dir", "a folder of results"):convert(folder)
  parser:option("--csv", "write comma-separated values to FILE; - is standard output")
    :argname "FILE"
    :args "?"
  parser:option("--json", "write JSON to FILE; - is standard output")
    :argname "FILE"
    :args "?"
end

local function columns(results)
  local names = table.move(results.parameters, 1, #results.parameters, 1, {})
  names[#names + 1] = "status"
  for _, m in ipairs(results.metrics) do
    for _, suffix in ipairs {"", ".lo", ".hi"} do names[#names + 1] = m.name .. suffix end
  end
  return names
end

local function row_of(results, point)
  local row = {}
  for _, name in ipairs(results.parameters) do row[name] = point.parameters[name] end
  row.status = point.status
  for _, m in ipairs(results.metrics) do
    local value = point.metrics[m.name]
    if value then
      row[m.name] = value.centre
      row[m.name .. ".lo"], row[m.name .. ".hi"] = value.lo, value.hi
    end
  end
  return row
end

local function cell(v)
  if v == nil then return "" end
  if math.type(v) == "float" then return (("%.17g"):format(v)) end
  local s = tostring(v)
  return s:find '[",\n\r]' and '"' .. s:gsub('"', '""') .. '"' or s
end

local function csv(results)
  local names, lines = columns(results), {}
  local head = {}
  for i, name in ipairs(names) do head[i] = cell(name) end
  lines[1] = table.concat(head, ",")
  for _, point in ipairs(results.points) do
    local row, cells = row_of(results, point), {}
    for i, name in ipairs(names) do cells[i] = cell(row[name]) end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

local function json_text(results)
  local rows = json.list()
  for i, point in ipairs(results.points) do rows[i] = row_of(results, point) end
  return json.encode(rows) .. "\n"
end

function export.run(args)
  if (args.csv and args.json) or not (args.csv or args.json) then
    output.complain("attune export", "expected either --csv or --json")
    return 2
  end
  local results, why = store.read(args.dir)
  if not results then
    output.complain("attune export", why)
    return 2
  end
  local content = args.csv and csv(results) or json_text(results)
  local target = (args.csv or args.json)[1] or "-"
  if target == "-" then
    -- A terminal would obey control characters; a pipe or a file gets the data as it is.
    local terminal = uv.guess_handle(1) == "tty"
    output.write(terminal and text.printable(content, "\n") or content)
    return 0
  end
  local ok, failed = files.save(target, content)
  if not ok then
    output.complain("attune export", failed)
    return 1
  end
  return 0
end

return export
