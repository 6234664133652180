--- A figure's SVG as part of a page: its names are its own, its colours follow the page (dark or
--- light), its marks say their values, and readers who do not see it get it in sentences.
local text = require "attune.util.text"

local inline = {}

--- A text for HTML and SVG, in elements and in quoted attributes. Control characters, and
--- characters that reorder the text around them, become visible.
---@param s any
---@param keep? string control characters that stay
---@return string
function inline.escape(s, keep) return text.xml(text.printable(s, keep)) end

local max_spots = 2000 -- of one figure; the table has all values

-- The colours of the theme screen (plots/theme.gp) as variables of the page's style.
local variables = {
  ["34,34,34"] = "--ink", ["107,107,107"] = "--quiet", ["164,74,0"] = "--warned",
  ["85,85,85"] = "--rule", ["228,228,228"] = "--grid", ["0,114,178"] = "--c1",
  ["213,94,0"] = "--c2", ["0,158,115"] = "--c3", ["204,121,167"] = "--c4",
  ["230,159,0"] = "--c5", ["86,180,233"] = "--c6", ["0,0,0"] = "--c7", ["127,127,127"] = "--c8",
  ["189,189,189"] = "--g1", ["140,140,140"] = "--g2", ["217,217,217"] = "--g4",
}

local function variable(r, g, b)
  local name = variables[("%d,%d,%d"):format(r, g, b)]
  return name and ("var(%s)"):format(name) or nil
end

-- One tag with names and colours of its own.
local function own_tag(tag, prefix)
  tag = tag:gsub("([%s]id%s*=%s*['\"])", "%1" .. prefix)
  tag = tag:gsub("(href%s*=%s*['\"]#)", "%1" .. prefix):gsub("(url%(#)", "%1" .. prefix)
  return (tag:gsub("rgb%(%s*(%d+),%s*(%d+),%s*(%d+)%)", variable))
end

local function spot_element(spot, size)
  -- gnuplot's SVG has 100 units per inch, from the upper edge.
  local x, y = 100 * spot.x, 100 * (size.height - spot.y)
  local title = ("<title>%s</title>"):format(inline.escape(spot.text))
  if not spot.width then
    return ('<circle cx="%.0f" cy="%.0f" r="9">%s</circle>'):format(x, y, title)
  end
  local w, h = 100 * spot.width, 100 * spot.height
  return ('<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f">%s</rect>'):format(x - w / 2,
    y - h / 2, w, h, title)
end

--- A checked SVG file of gnuplot (content.picture) as an element of a page.
---@param svg string
---@param prefix string of its names, such as "f1-"
---@param title string
---@param figure attune.Figure
---@return string
function inline.svg(svg, prefix, title, figure)
  local body = svg:match "<svg[^>]*>(.*)</svg>%s*$"
  body = body:gsub("<title>[^<]*</title>", "", 1):gsub("<desc>[^<]*</desc>", "", 1)
  body = body:gsub("<filter.-</filter>%s*", "")
  body = body:gsub('(<rect x="0" y="0" [^>]-fill=")#%x+', "%1var(--ground)", 1)
  body = body:gsub("<[^>]*>", function(tag) return own_tag(tag, prefix) end)
  local parts = {
    ('<svg role="img" aria-labelledby="%st %sd" viewBox="0 0 %.0f %.0f">'):format(prefix, prefix,
      100 * figure.size.width, 100 * figure.size.height),
    ('<title id="%st">%s</title><desc id="%sd">%s</desc>'):format(prefix, inline.escape(title),
      prefix, inline.escape(figure.words or "")),
    body,
  }
  local spots = figure.spots or {}
  if #spots > 0 and #spots <= max_spots then
    parts[#parts + 1] = '<g class="spots">'
    for _, spot in ipairs(spots) do parts[#parts + 1] = spot_element(spot, figure.size) end
    parts[#parts + 1] = "</g>"
  end
  parts[#parts + 1] = "</svg>"
  return table.concat(parts, "\n")
end

return inline
