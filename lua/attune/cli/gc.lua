local collect = require "attune.results.collect"
local folder = require "attune.cli.folder"
local lock = require "attune.results.lock"
local output = require "attune.cli.output"
local reader = require "attune.results.reader"
local text = require "attune.util.text"

local gc = {summary = "remove from a folder of results what no longer counts"}

function gc.options(parser)
  parser:argument("dir", "a folder of results"):convert(folder)
  parser:flag("--dry", "say what would be removed, and remove nothing")
end

local kinds = {
  {"superseded", "record%s that a later script or version supersedes"},
  {"repeated", "record%s of trials that were tried again or are there twice"},
  {"broken", "line%s that %s no record"},
  {"kept", "file%s that trials of such records kept"},
  {"old", "file%s of earlier runs in trials/old"},
}

local function say(message) output.complain("attune gc", message) end

local function misuse(message)
  say(message)
  return 2
end

function gc.run(args)
  local ok, why = reader.open(args.dir)
  if not ok then return misuse(why) end
  local held
  if not args.dry then
    held, why = lock.take(args.dir, say)
    if held == nil then return misuse(why) end
  end
  local sums
  sums, why = collect(args.dir, args.dry)
  lock.release(held)
  if not sums then return misuse(why) end
  local any = false
  for _, kind in ipairs(kinds) do
    local count = sums[kind[1]]
    if count then
      any = true
      local words = kind[2]:format(count == 1 and "" or "s", count == 1 and "is" or "are")
      output.line(("%d %s"):format(count, words))
    end
  end
  local verb = args.dry and "would be removed" or "removed"
  output.line(any and ("%s %s"):format(text.quantity(sums.bytes, "B"), verb)
    or "Nothing to remove.")
  return 0
end

return gc
