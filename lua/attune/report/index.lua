--- index.html: the folders of results in a folder, with their verdicts and links to their reports.
local content = require "attune.report.content"
local files = require "attune.util.files"
local html = require "attune.report.html"
local inline = require "attune.report.inline"
local store = require "attune.results.store"
local text = require "attune.util.text"

local escape = inline.escape

-- A path as a link: RFC 3986, every byte but the unreserved ones is %-encoded.
local function link(name, file)
  local encoded = name:gsub("[^%w._~-]", function(c) return ("%%%02X"):format(c:byte()) end)
  return ("./%s/%s"):format(encoded, file)
end

local columns = {
  {name = "experiment"}, {name = "what it asks"}, {name = "points", numeric = true},
  {name = "without a result", numeric = true}, {name = "claims"}, {name = "last run"},
}

local function row_of(name, results, has_report)
  local ok = 0
  for _, point in ipairs(results.points) do
    if point.status == "ok" then ok = ok + 1 end
  end
  local left, last = #results.points - ok, results.provenance[#results.provenance]
  local title = escape(results.name) .. (name ~= results.name and " in " .. escape(name) or "")
  if has_report then title = ('<a href="%s">%s</a>'):format(link(name, "report.html"), title) end
  local number = '<td class="n" data-v="%d">%d</td>'
  return table.concat {
    ("<td>%s</td>"):format(title),
    ('<td class="wide">%s</td>'):format(escape(results.about or "")),
    number:format(#results.points, #results.points), number:format(left, left),
    ("<td>%s</td>"):format(escape(content.verdicts(results))),
    ("<td>%s</td>"):format(escape(last and last.time or "-")),
  }
end

--- The page as one string.
---@param dir string a folder of folders of results
---@return string? page nil when there are none
---@return string? message
return function(dir)
  if files.kind(dir) ~= "directory" then
    return nil, dir .. ": expected a folder that holds folders of results, got "
      .. (files.kind(dir) and "a file" or "nothing")
  end
  local rows, broken = {}, {}
  for _, name in ipairs(files.list(dir)) do
    local path = dir .. "/" .. name
    local is_folder = files.kind_inside(path) == "directory"
    if is_folder and files.kind_inside(path .. "/experiment.json") == "file" then
      local results, why = store.read(path)
      local has_report = files.kind_inside(path .. "/report.html") == "file"
      if results then rows[#rows + 1] = row_of(name, results, has_report)
      else broken[#broken + 1] = ("%s: %s"):format(name, why) end
    end
  end
  if #rows == 0 and #broken == 0 then
    return nil, dir .. ": expected folders of results, got none (no experiment.json)"
  end
  local out = {}
  html.begin(out, "Experiments")
  out[#out + 1] = "<h1>Experiments</h1>"
  local caption = text.count(#rows, "folder") .. " of results"
  html.add_table(out, caption, columns, rows)
  if #broken > 0 then out[#out + 1] = "<h2>Folders that cannot be read</h2><ul>" end
  for _, why in ipairs(broken) do out[#out + 1] = ("<li>%s</li>"):format(escape(why)) end
  if #broken > 0 then out[#out + 1] = "</ul>" end
  html.finish(out)
  return table.concat(out, "\n")
end
