--- Figures in sentences, made from their data: for readers who do not see them.
local marks = require "attune.plot.marks"
local text = require "attune.util.text"

local describe = {}

local max_lines = 12 -- of one figure

-- "on a logarithmic axis of y", or "".
local function axes_words(x, y)
  if x.log and y.log then return ", both axes logarithmic" end
  if x.log or y.log then return (", axis of %s logarithmic"):format(x.log and "x" or "y") end
  return ""
end

local function extent(rows, field)
  local low, high
  for _, row in ipairs(rows) do
    low, high = math.min(low or row[field], row[field]), math.max(high or row[field], row[field])
  end
  return low, high
end

local function line_words(data, line)
  local rows = line.rows
  local first, last = rows[1], rows[#rows]
  local x, y = data.x, data.y
  if line.form == "line" or line.form == "curve" then
    if #rows == 1 then
      return ("%s at %s %s"):format(marks.value(y, first.y), x.name, marks.value(x, first.x))
    end
    return ("from %s at %s %s to %s at %s"):format(marks.value(y, first.y), x.name,
      marks.value(x, first.x), marks.value(y, last.y), marks.value(x, last.x))
  end
  if line.form == "box" then
    local low, high = extent(rows, "y")
    return ("%s, medians from %s to %s"):format(text.count(#rows, "box"):gsub("boxs", "boxes"),
      marks.value(y, low), marks.value(y, high))
  end
  local x_low, x_high = extent(rows, "x")
  local y_low, y_high = extent(rows, "y")
  return ("%s, %s from %s to %s, %s from %s to %s"):format(text.count(#rows, "point"), x.name,
    marks.value(x, x_low), marks.value(x, x_high), y.name, marks.value(y, y_low),
    marks.value(y, y_high))
end

--- A chart of panels in sentences.
---@param data attune.Lines
---@return string
function describe.panels(data)
  local parts, left = {}, 0
  parts[1] = ("%s of %s against %s%s."):format(data.what or "Line chart", data.y.name, data.x.name,
    axes_words(data.x, data.y))
  for _, panel in ipairs(data.panels) do
    for _, line in ipairs(panel.lines) do
      if line.form ~= "roof" and #parts <= max_lines then
        local name = {panel.title}
        name[#name + 1] = line.label
        local words = line_words(data, line)
        parts[#parts + 1] = #name > 0 and ("%s: %s."):format(table.concat(name, ", "), words)
          or ("%s."):format((words:gsub("^%l", string.upper)))
      elseif line.form ~= "roof" then
        left = left + 1
      end
    end
  end
  if left > 0 then parts[#parts + 1] = ("And %s more."):format(text.count(left, "line")) end
  return table.concat(parts, " ")
end

return describe
