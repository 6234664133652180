--- The page of `attune watch`: the loss curves of training runs, read from their losses.jsonl. The
--- page needs nothing else, runs no script, and loads itself again.
local escape = require "attune.report.inline".escape
local files = require "attune.util.files"
local json = require "attune.util.json"

local curves = {}

local max_depth, max_points, max_runs = 4, 400, 100
local record_name = "losses.jsonl"

-- The files of that name below a folder, sorted.
local function find(folder, prefix, depth, found)
  for _, name in ipairs(files.list(folder)) do
    local path = folder .. "/" .. name
    local kind = files.kind_inside(path)
    if kind == "file" and name == record_name then
      found[#found + 1] = {name = prefix == "" and "." or prefix:sub(1, -2), path = path}
    elseif kind == "directory" and depth < max_depth then
      find(path, prefix .. name .. "/", depth + 1, found)
    end
  end
  return found
end

local function number(x) return type(x) == "number" and x == x and math.abs(x) < math.huge end

-- Steps and losses of a file; lines that are torn or foreign are left out.
local function read(run)
  local content = files.read_inside(run.path) or ""
  run.losses, run.validation = {}, {}
  for line in content:gmatch "[^\n]+" do
    local entry = json.decode(line)
    if type(entry) == "table" and number(entry.step) and number(entry.loss) then
      run.losses[#run.losses + 1] = {entry.step, entry.loss}
      if number(entry.validation) then
        run.validation[#run.validation + 1] = {entry.step, entry.validation}
      end
      run.last = entry
    end
  end
  return run
end

--- The runs below a folder: {name, losses, validation, last}.
---@param folder string
---@return table[]
function curves.read(folder)
  local runs = {}
  for _, run in ipairs(find(folder, "", 0, {})) do
    if #runs < max_runs and read(run).last then runs[#runs + 1] = run end
  end
  return runs
end

-- Means of neighbouring points, so that a curve has at most max_points.
local function thinned(points)
  local size = (#points + max_points - 1) // max_points
  if size <= 1 then return points end
  local list = {}
  for first = 1, #points, size do
    local last, x, y = math.min(first + size - 1, #points), 0, 0
    for k = first, last do x, y = x + points[k][1], y + points[k][2] end
    list[#list + 1] = {x / (last - first + 1), y / (last - first + 1)}
  end
  return list
end

local colours = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555"}
local left, top, width, height = 60, 20, 760, 380

local function range_of(runs)
  local x, low, high = 1, math.huge, -math.huge
  for _, run in ipairs(runs) do
    for _, list in ipairs {run.losses, run.validation} do
      for _, p in ipairs(list) do
        x, low, high = math.max(x, p[1]), math.min(low, p[2]), math.max(high, p[2])
      end
    end
  end
  if high - low < 1e-9 then high, low = high + 0.5, low - 0.5 end
  return x, low, high
end

local function svg(runs)
  local max_x, low, high = range_of(runs)
  local function place(p)
    return left + width * p[1] / max_x, top + height * (high - p[2]) / (high - low)
  end
  local out = {('<svg viewBox="0 0 %d %d" role="img" aria-label="Loss against steps">'):format(
    left + width + 20, top + height + 40)}
  for k = 0, 4 do
    local y, value = top + height * k / 4, high - (high - low) * k / 4
    out[#out + 1] = ('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#8884"/>'):format(
      left, y, left + width, y)
    out[#out + 1] = ('<text x="%d" y="%.1f" text-anchor="end">%.3f</text>'):format(
      left - 6, y + 4, value)
    out[#out + 1] = ('<text x="%.1f" y="%d" text-anchor="middle">%d</text>'):format(
      left + width * k / 4, top + height + 20, math.floor(max_x * k / 4))
  end
  for n, run in ipairs(runs) do
    local colour, points = colours[(n - 1) % #colours + 1], {}
    for k, p in ipairs(thinned(run.losses)) do points[k] = ("%.1f,%.1f"):format(place(p)) end
    local form = '<polyline fill="none" stroke="%s" stroke-opacity="0.6" points="%s"/>'
    out[#out + 1] = form:format(colour, table.concat(points, " "))
    for _, p in ipairs(run.validation) do
      local x, y = place(p)
      out[#out + 1] = ('<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>'):format(x, y, colour)
    end
  end
  out[#out + 1] = "</svg>"
  return table.concat(out, "\n")
end

local function rows(runs)
  local out = {}
  for n, run in ipairs(runs) do
    local last, validation = run.last, run.validation[#run.validation]
    out[n] = ('<tr><td><svg viewBox="0 0 9 9" width="9"><rect width="9" height="9" fill="%s"/>'
      .. "</svg> %s</td><td>%d%s</td><td>%.4f</td><td>%s</td><td>%s</td></tr>"):format(
      colours[(n - 1) % #colours + 1], escape(run.name), math.floor(last.step),
      number(last.steps) and (" / %d"):format(math.floor(last.steps)) or "", last.loss,
      validation and ("%.4f"):format(validation[2]) or "",
      number(last.tokens_per_s) and ("%.0f"):format(last.tokens_per_s) or "")
  end
  return table.concat(out, "\n")
end

--- The page as HTML.
---@param folder string for the title
---@param runs table[] of curves.read
---@param every integer seconds until the browser loads it again
---@return string
function curves.page(folder, runs, every)
  local body = #runs > 0
    and svg(runs) .. "\n<p>Lines: the loss of each step. Dots: validation.</p>\n<table><tr>"
      .. "<th>Run</th><th>Step</th><th>Loss</th><th>Validation</th><th>Tokens/s</th></tr>\n"
      .. rows(runs) .. "\n</table>"
    or "<p>No run has written a losses.jsonl below this folder yet.</p>"
  return ([[
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta http-equiv="refresh" content="%d">
<meta name="viewport" content="width=device-width">
<title>%s</title>
<style>
:root { color-scheme: light dark; font: 15px sans-serif; }
body { max-width: 60em; margin: 1em auto; padding: 0 1em; }
svg text { font-size: 12px; fill: currentColor; }
td, th { padding: 0.2em 0.8em; text-align: left; }
</style></head><body>
<h1>%s</h1>
%s
</body></html>
]]):format(every, escape(folder), escape(folder), body)
end

return curves
