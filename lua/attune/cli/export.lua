local files = require "attune.util.files"
local folder = require "attune.cli.folder"
local json = require "attune.util.json"
local output = require "attune.cli.output"
local rows = require "attune.results.rows"
local store = require "attune.results.store"
local text = require "attune.util.text"
local uv = require "luv"

local export = {summary = "write results as one table, in CSV or JSON: a row per point or sample"}

function export.options(parser)
  parser:argument("dir", "a folder of results"):convert(folder)
  parser:option("--csv", "write comma-separated values to FILE; - is standard output")
    :argname "FILE"
    :args "?"
  parser:option("--json", "write JSON to FILE; - is standard output")
    :argname "FILE"
    :args "?"
  parser:flag("--samples", "one row per sample in place of one per point")
end

local function cell(v)
  if v == nil then return "" end
  if v ~= v then return "nan" end
  if math.type(v) == "float" then return (("%.17g"):format(v)) end
  local s = tostring(v)
  return s:find '[",\n\r]' and '"' .. s:gsub('"', '""') .. '"' or s
end

local function csv(names, list)
  local lines, head = {}, {}
  for i, name in ipairs(names) do head[i] = cell(name) end
  lines[1] = table.concat(head, ",")
  for _, row in ipairs(list) do
    local cells = {}
    for i, name in ipairs(names) do cells[i] = cell(row[name]) end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

local function table_of(results, with_samples)
  if with_samples then return rows.of_samples(results) end
  return rows.columns(results), rows.of_points(results)
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
  local names, list = table_of(results, args.samples)
  local content = args.csv and csv(names, list) or json.encode(list) .. "\n"
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
