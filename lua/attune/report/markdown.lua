--- report.md: the same for a repository, with links to the figures' files.
local content = require "attune.report.content"
local files = require "attune.util.files"

local function escape(s) return (tostring(s):gsub("%c", " "):gsub("[\\`*_{}%[%]<>#|]", "\\%0")) end

return function(results, dir)
  local out = {"# " .. escape(results.name), "", escape(results.about or ""), "", escape(content.summary(results)), ""}
  for _, c in ipairs(results.claims) do
    out[#out + 1] = ("- **%s**: %s%s"):format(escape(c.verdict), escape(c.text), c.detail and (" (%s)"):format(escape(c.detail:match "^[^\n]*")) or "")
  end
  for _, f in ipairs(content.figures(results)) do
    if files.kind(("%s/plots/%s.svg"):format(dir, f.name)) then
      out[#out + 1] = ("\n![%s](plots/%s.svg)\n\n%s%s"):format(escape(f.title), f.name, escape(f.caption and f.caption .. " " or ""), f.conditions ~= "" and escape("Conditions: " .. f.conditions .. ".") or "")
    end
  end
  out[#out + 1] = "\n## All points\n"
  local columns, rows = content.table(results)
  local head, rule = {}, {}
  for i, c in ipairs(columns) do head[i], rule[i] = escape(c.name), c.numeric and "--:" or ":--" end
  out[#out + 1] = "| " .. table.concat(head, " | ") .. " |\n| " .. table.concat(rule, " | ") .. " |"
  for _, row in ipairs(rows) do
    local cells = {}
    for i = 1, #columns do cells[i] = escape(row[i].text) .. (row[i].spread and (" (%s)"):format(escape(row[i].spread)) or "") end
    out[#out + 1] = "| " .. table.concat(cells, " | ") .. " |"
  end
  local groups = content.missing(results)
  if #groups > 0 then out[#out + 1] = "\n## Points without a result\n" end
  for _, g in ipairs(groups) do out[#out + 1] = ("- **%s**: %s (%d points)"):format(escape(g.status), escape(g.reason), #g.points) end
  if #results.warnings > 0 then out[#out + 1] = "\n## Warnings\n" end
  for _, w in ipairs(results.warnings) do out[#out + 1] = "- " .. escape(w) end
  out[#out + 1] = "\n## Machine and provenance\n"
  for _, p in ipairs(results.provenance) do
    for _, row in ipairs(content.provenance(p)) do out[#out + 1] = ("- %s: %s"):format(escape(row[1]), escape(row[2])) end
    out[#out + 1] = ""
  end
  out[#out + 1] = "## To make it again\n\n    " .. table.concat(content.commands(results), "\n    ") .. "\n"
  return table.concat(out, "\n")
end
