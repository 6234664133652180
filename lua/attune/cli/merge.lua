local folder = require "attune.cli.folder"
local join = require "attune.results.merge"
local output = require "attune.cli.output"

local merge = {summary = "join folders of results of one experiment into a new one"}

function merge.options(parser)
  parser:argument("dirs", "folders of results; they stay as they are")
    :args "2+"
    :convert(folder)
  parser:option("--out", "the new folder")
    :argname "DIR"
    :count(1)
    :convert(folder)
end

function merge.run(args)
  local joined, why = join(args.dirs, args.out)
  if not joined then
    output.complain("attune merge", why)
    return 2
  end
  for i, dir in ipairs(args.dirs) do
    output.line(("%s: %d trials with a result"):format(dir, joined.counts[i]))
  end
  output.line(("%s: %d, as %d are in more than one"):format(args.out, joined.total, joined.both))
  if joined.sources > 1 then
    output.complain("attune merge", "the folders were measured by different versions of the "
      .. "script: where they have the same parameters, those of the last folder count")
  end
  return 0
end

return merge
