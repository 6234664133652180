local curves = require "attune.report.curves"
local files = require "attune.util.files"
local folder = require "attune.cli.folder"
local output = require "attune.cli.output"
local uv = require "luv"

local watch = {summary = "write a page with the loss curves of training runs, again and again"}

function watch.options(parser)
  parser:argument("dir", "a folder; runs are folders below it that hold losses.jsonl")
    :convert(folder)
  parser:option("--every", "seconds between two pages", "5"):argname "S"
    :convert(function(text)
      local seconds = tonumber(text)
      if seconds and seconds >= 1 and seconds <= 3600 then return math.floor(seconds) end
      return nil, "--every: expected seconds from 1 to 3600, got " .. text
    end)
  parser:flag("--once", "write the page once")
end

local function misuse(message)
  output.complain("attune watch", message)
  return 2
end

function watch.run(args)
  if files.kind(args.dir) ~= "directory" then
    return misuse(args.dir .. ": expected a folder, got none")
  end
  local page = args.dir .. "/watch.html"
  local told = false
  while true do
    local ok, why = files.write(page, curves.page(args.dir, curves.read(args.dir), args.every))
    if not ok then
      output.complain("attune watch", page .. ": " .. why)
      return 1
    end
    if not told then output.line("Page: " .. page) end
    told = true
    if args.once then return 0 end
    output.flush()
    uv.sleep(args.every * 1000)
  end
end

return watch
