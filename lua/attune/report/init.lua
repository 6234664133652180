--- The report of a folder of results: one page that opens offline, and the same in Markdown.
local files = require "attune.util.files"

local report = {}

--- Writes dir/report.html and dir/report.md.
---@param results attune.Results
---@param dir string where the plots are, too
---@return string[]? paths
---@return string? message
function report.write(results, dir)
  local made = {}
  for _, form in ipairs {{"html", "report.html"}, {"markdown", "report.md"}} do
    local path = dir .. "/" .. form[2]
    local ok, why = files.write(path, require("attune.report." .. form[1])(results, dir))
    if not ok then return nil, ("%s: %s"):format(path, why) end
    made[#made + 1] = path
  end
  return made
end

return report
