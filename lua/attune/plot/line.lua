--- Lines with intervals, labelled at their ends; a panel for each value of `facet`.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local text = require "attune.text"

local number, quote = gnuplot.number, gnuplot.quote

-- One line's rows {x, y, lo, hi, also}, sorted by x.
local function rows_of(results, all, points, spec)
  local rows = {}
  for _, point in ipairs(points) do
    local v = series.value(results, all, point, spec, spec.y)
    local also = spec.also and series.value(results, all, point, spec, spec.also)
    if v and v.median then rows[#rows + 1] = {point.parameters[spec.x], v.median, v.lo or v.median, v.hi or v.median, also and also.median} end
  end
  table.sort(rows, function(a, b) return a[1] < b[1] end)
  return rows
end

-- Moves labels apart: places (in shares of the panel's height) at least `gap` from one another, as near to their lines as that allows.
local function spread(labels, gap)
  table.sort(labels, function(a, b) return a.at < b.at end)
  for _ = 1, 200 do
    local moved = false
    for i = 2, #labels do
      local short = gap - (labels[i].at - labels[i - 1].at)
      if short > 1e-6 then
        labels[i].at, labels[i - 1].at = labels[i].at + short / 2, labels[i - 1].at - short / 2
        moved = true
      end
    end
    if #labels > 0 and labels[1].at < 0 then
      for _, l in ipairs(labels) do l.at = l.at - labels[1].at end
    end
    if not moved then break end
  end
end

local function panel_lines(results, all, points, spec)
  local lines = {}
  for style, value in ipairs(series.by(all, spec)) do
    local mine = {}
    for _, point in ipairs(points) do
      if not spec.by or point.parameters[spec.by] == value then mine[#mine + 1] = point end
    end
    local rows = rows_of(results, all, mine, spec)
    -- A line of ones is no news where everything is a factor against it.
    local is_base = spec.against and spec.by and spec.against[spec.by] == value
    if #rows > 0 and not is_base then lines[#lines + 1] = {label = value ~= false and text.plain(value) or nil, rows = rows, style = (style - 1) % 8 + 1} end
  end
  return lines
end

local function emit_data(lines, spec, out)
  local first = #out
  for _, line in ipairs(lines) do
    local block = {}
    for _, r in ipairs(line.rows) do block[#block + 1] = ("%s %s %s %s"):format(number(r[1]), number(r[2]), number(r[3]), number(r[4])) end
    out[#out + 1] = table.concat(block, "\n")
  end
  if spec.also then
    for _, line in ipairs(lines) do
      local block = {}
      for _, r in ipairs(line.rows) do block[#block + 1] = ("%s %s"):format(number(r[1]), number(r[5])) end
      out[#out + 1] = table.concat(block, "\n")
    end
  end
  return first
end

local function ranges(panels, spec)
  local xs, ys = {}, {}
  for _, panel in ipairs(panels) do
    for _, line in ipairs(panel.lines) do
      for _, r in ipairs(line.rows) do
        xs[#xs + 1] = r[1]
        for i = 2, 5 do
          -- An interval that reaches below zero would have no place on a logarithmic axis.
          if r[i] and not (i == 3 and spec.log and spec.log:find "y" and r[i] <= 0) then ys[#ys + 1] = r[i] end
        end
      end
    end
  end
  if #ys == 0 then return nil, "there is no point with a value" end
  local log_x, log_y = spec.log and spec.log:find "x" and true, spec.log and spec.log:find "y" and true
  local x1, x2 = frame.range(xs, log_x, 0.04, 0.04)
  local y1, y2 = frame.range(ys, log_y, 0.06, 0.08)
  if not x1 or not y1 then return nil, ("log: the %s axis has a value that is not positive"):format(x1 and "y" or "x") end
  return {x1 = x1, x2 = x2, y1 = y1, y2 = y2, log_x = log_x, log_y = log_y, xs = xs}
end

local function x_ticks(xs)
  local seen, list = {}, {}
  for _, x in ipairs(xs) do
    if not seen[x] then
      seen[x] = true
      list[#list + 1] = x
    end
  end
  table.sort(list)
  if #list > 7 then return nil end
  local parts = {}
  for i, x in ipairs(list) do parts[i] = ("'%s' %s"):format(math.type(x) == "integer" and ("%d"):format(x) or ("%g"):format(x), number(x)) end
  return "(" .. table.concat(parts, ", ") .. ")"
end

local function label_script(panel, r, gap)
  local labels = {}
  for _, line in ipairs(panel.lines) do
    local last = line.rows[#line.rows]
    local y = r.log_y and math.log(last[2] / r.y1) / math.log(r.y2 / r.y1) or (last[2] - r.y1) / (r.y2 - r.y1)
    if line.label then labels[#labels + 1] = {text = line.label, at = y, style = line.style} end
  end
  spread(labels, gap)
  local script = {}
  for i, l in ipairs(labels) do
    script[#script + 1] = ("set label %d %s at graph 1.02,%.4f left font ',14' textcolor rgb colour[%d]"):format(200 + i, quote(l.text), l.at, l.style)
  end
  return table.concat(script, "\n"), #labels
end

-- Room for the ticks at the left and the labels at the right, as shares of the width; a letter is about 0.105 inch.
local function margins(panels, r, unit, size)
  local letters = 0
  for _, panel in ipairs(panels) do
    for _, line in ipairs(panel.lines) do letters = math.max(letters, line.label and utf8.len(line.label) or 0) end
  end
  local tiny = r.log_y and r.y1 < 1e-3 and 0.2 or 0
  local left = 0.085 + (tiny + 0.105 * math.max(0, #(unit or "") - 3)) / size.width
  return left, math.max(#panels > 1 and 0.075 or 0.11, (0.2 + 0.105 * math.min(letters, 24)) / size.width)
end

return function(results, spec, points)
  local panels = {}
  local facets = spec.facet and series.distinct(points, spec.facet) or {false}
  for _, value in ipairs(facets) do
    local mine = {}
    for _, point in ipairs(points) do
      if not spec.facet or point.parameters[spec.facet] == value then mine[#mine + 1] = point end
    end
    panels[#panels + 1] = {title = value ~= false and text.plain(value) or nil, lines = panel_lines(results, points, mine, spec)}
  end
  local r, why = ranges(panels, spec)
  if not r then return nil, why end

  local metric = series.metric(results, spec.y) or {}
  local columns = #panels > 1 and 2 or 1
  local rows = math.ceil(#panels / columns)
  local size = {width = #panels > 1 and 11 or 8.5, height = #panels > 1 and 1.0 + 3.2 * rows or 5.6}
  local unit = spec.against and "" or metric.unit
  local constants = series.constants(points, results, spec)
  if spec.also then table.insert(constants, 1, ("solid: %s, dashed: %s"):format(spec.y:gsub("_", " "), spec.also:gsub("_", " "))) end
  local script = {frame.title(spec.title or spec.y, table.concat(constants, " · "), frame.machine(results), size)}
  local out = {}
  local ticks = x_ticks(r.xs)
  script[#script + 1] = ("%s%sset xrange [%s:%s]\nset yrange [%s:%s]\nset format y %s\n%sset xlabel %s textcolor rgb quiet offset 0,0.3"):format(
    r.log_x and "set logscale x\n" or "", r.log_y and "set logscale y\n" or "", number(r.x1), number(r.x2), number(r.y1), number(r.y2),
    spec.against and "'%g×'" or frame.ticks(unit), ticks and "set xtics " .. ticks .. "\n" or "", quote(spec.x))
  if #panels > 1 then script[#script + 1] = "set multiplot" end
  local bottom, top, left, right = 0.72 / size.height, 1 - 1.0 / size.height, margins(panels, r, unit, size)
  local cell_w, cell_h = (1 - 0.01) / columns, top / rows
  for i, panel in ipairs(panels) do
    local column, row = (i - 1) % columns, (i - 1) // columns
    local x1 = column * cell_w + left
    local x2 = (column + 1) * cell_w - right
    local y2 = top - row * cell_h - (panel.title and 0.28 / size.height or 0)
    local y1 = top - (row + 1) * cell_h + bottom
    script[#script + 1] = ("set lmargin at screen %.4f\nset rmargin at screen %.4f\nset bmargin at screen %.4f\nset tmargin at screen %.4f"):format(x1, x2, y1, y2)
    if i > 1 then script[#script + 1] = "unset label" end
    if panel.title then script[#script + 1] = ("set label 150 %s at graph 0,1.07 left font ',15' textcolor rgb ink"):format(quote(panel.title)) end
    local labels = label_script(panel, r, 0.24 / ((y2 - y1) * size.height))
    script[#script + 1] = labels
    local first = emit_data(panel.lines, spec, out)
    local styles = {}
    for k, line in ipairs(panel.lines) do styles[k] = line.style end
    if #styles > 0 then
      script[#script + 1] = ("series = %d\ncompanions = %d\narray style[%d] = [%s]\nfirst = %d"):format(#styles, spec.also and 1 or 0, #styles, table.concat(styles, ","), first)
      script[#script + 1] = "load plots.'/line.gp'"
    end
  end
  if #panels > 1 then script[#script + 1] = "unset multiplot" end
  return {size = size, script = table.concat(script, "\n"), data = table.concat(out, "\n\n\n") .. "\n"}
end
