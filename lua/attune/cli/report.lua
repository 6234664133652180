local folder = require "attune.cli.folder"
local output = require "attune.cli.output"
local store = require "attune.results.store"

local formats = {"html", "md", "tex"}

local report = {summary = "write the report of a folder of results again"}

-- "html,tex" as a list.
local function parse_formats(words)
  local list = {}
  for word in words:gmatch "[^,]+" do
    local known
    for _, name in ipairs(formats) do known = known or name == word end
    if not known then
      return nil, ("--to: expected html, md or tex, got '%s'"):format(word)
    end
    list[#list + 1] = word
  end
  if #list == 0 then return nil, "--to: expected html, md or tex, got none" end
  return list
end

function report.options(parser)
  parser:argument("dir", "a folder of results; with --index a folder that holds such folders")
    :convert(folder)
  parser:option("--to", "html,md by default; also tex (LaTeX with booktabs)")
    :argname "F,.."
    :convert(parse_formats)
  parser:flag("--index", "write DIR/index.html, a page that lists the folders of results in DIR")
end

local function misuse(message)
  output.complain("attune report", message)
  return 2
end

local function write_index(dir)
  local path, why = require "attune.report".write_index(dir)
  if not path then return misuse(why) end
  output.line(path)
  return 0
end

function report.run(args)
  if args.index and args.to then return misuse "expected either --index or --to, got both" end
  if args.index then return write_index(args.dir) end
  local results, why = store.read(args.dir)
  if not results then return misuse(why) end
  local made, failed = require "attune.report".write(results, args.dir, args.to)
  if not made then
    output.complain("attune report", failed)
    return 1
  end
  for _, path in ipairs(made) do output.line(path) end
  return 0
end

return report
