--- What a script lacks that is the copy in a folder of results: the files beside the original.
local files = require "attune.util.files"
local reader = require "attune.results.reader"

--- Says of which script a path is the copy.
---@param path string
---@return string words to append to a message; "" where it is no copy
return function(path)
  if not path:find "script%.lua$" then return "" end
  local description = reader.description(files.folder_of(path))
  if not description or not description.script then return "" end
  local format = "; %s is a copy, whose modules and used experiments are beside the original, %s: "
    .. "run that"
  return format:format(path, description.script)
end
