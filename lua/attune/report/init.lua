--- The report of a folder of results: one page that opens offline, and the same in Markdown and for
--- LaTeX.
local files = require "attune.util.files"

local report = {}

--- The formats of a report, and those that a run writes.
report.formats = {"html", "md", "tex"}
report.usual_formats = {"html", "md"}

-- The text of a report in a format.
local function text_of(format, results, dir)
  if format == "html" then return require "attune.report.html".page(results, dir) end
  if format == "tex" then return require "attune.report.latex"(results, dir) end
  return require "attune.report.markdown"(results, dir)
end

--- Writes dir/report.html and dir/report.md, or other formats.
---@param results attune.Results
---@param dir string where the plots are, too
---@param formats? string[] of html, md, tex; the first two by default
---@return string[]? paths
---@return string? message
function report.write(results, dir, formats)
  local made = {}
  for _, format in ipairs(formats or report.usual_formats) do
    local path = ("%s/report.%s"):format(dir, format)
    local ok, why = files.write(path, text_of(format, results, dir))
    if not ok then return nil, ("%s: %s"):format(path, why) end
    made[#made + 1] = path
  end
  return made
end

--- Writes dir/index.html, a page that lists the folders of results in a folder.
---@param dir string
---@return string? path
---@return string? message
function report.write_index(dir)
  local page, why = require "attune.report.index"(dir)
  if not page then return nil, why end
  local path = dir .. "/index.html"
  local ok, write_why = files.write(path, page)
  if not ok then return nil, ("%s: %s"):format(path, write_why) end
  return path
end

return report
