--- The pictures of make bench: cases under the machine's roofline, and time against tokens.
local attune = require "attune"
local files = require "attune.util.files"
local gnuplot = require "attune.plot.gnuplot"
local stats = require "attune.results.statistics"

local pictures = {}

local number, quote = gnuplot.number, gnuplot.quote
local size = {width = 12, height = 7.2}

local function medians(samples)
  local seconds = {}
  for _, s in ipairs(samples) do seconds[#seconds + 1] = s.seconds end
  return stats.median(seconds)
end

local function titles(title, what)
  local machine = attune.machine()
  return ("set label 100 %s at screen 0.02,0.955 left font ',17' textcolor rgb ink\n"
    .. "set label 101 %s at screen 0.02,0.915 left font ',11' textcolor rgb quiet\n"):format(
    quote(title),
    quote(("%s · %s, %d threads, %s"):format(what, machine.cpu, attune.threads(), machine.isa))
  )
end

local function draw(folder, name, script, data)
  local whole, why = gnuplot.script(name, {size = size, script = script}, "screen")
  for _, format in ipairs {"svg", "png"} do
    local made
    if whole then
      made, why = gnuplot.draw(format, name, gnuplot.texts_for(whole, format),
        gnuplot.texts_for(data, format))
    end
    local ok = made ~= nil
    local path = ("%s%s.%s"):format(folder, name, format)
    if ok then ok, why = files.write(path, made["." .. format]) end
    if not ok then io.stderr:write("bench: ", name, ": ", why, "\n") end
  end
end

-- The median of all readings of a ceiling; nil where there are none.
local function ceiling(name, cases, samples)
  local values = {}
  for _, c in ipairs(cases) do
    for _, s in ipairs(samples[c.name]) do values[#values + 1] = s.ceiling[name] end
  end
  return #values > 0 and stats.median(values) or nil
end

local function roofline(folder, cases, samples)
  local bandwidth = ceiling("read", cases, samples)
  local fma = ceiling("fma", cases, samples)
  local dots = ceiling("bf16", cases, samples)
  local low, high = 0.25, 8192
  local function roof(peak)
    return ("%g %s\n%g %s\n%g %s\n"):format(
      low, number(low * bandwidth), peak / bandwidth, number(peak), high, number(peak)
    )
  end
  local blocks = {roof(fma), dots and roof(dots) or "NaN NaN\n"}
  local groups, labels = {{}, {}, {}}, {}
  for _, c in ipairs(cases) do
    local s = c.point and samples[c.name][1]
    if s then
      local seconds = medians(samples[c.name])
      local x, y = s.flops / s.bytes, s.flops / seconds
      local group = c.name:find "f32" and 1 or c.name:find "bf16" and 2 or 3
      table.insert(groups[group], ("%s %s"):format(number(x), number(y)))
      local alignment = group ~= 1
        and "right offset -0.8,0.3" or c.point:find "prefill"
        and (c.point:find "64" and "left offset 0.9,-0.35" or "left offset 0.9,0.35")
        or "left offset 0.6,-0.6"
      labels[#labels + 1] = ("set label %d %s at first %s,%s %s font ',11' textcolor "
        .. "rgb colour[%d]"):format(
          200 + #labels,
          quote((c.point:gsub("^prefill", ""):gsub("^decode", ""):gsub(" %w+, ", "", 1))),
          number(x), number(y), alignment, group
        )
    end
  end
  for i, g in ipairs(groups) do
    blocks[2 + i] = #g > 0 and table.concat(g, "\n") .. "\n" or "NaN NaN\n"
  end
  local bottom, top = low * bandwidth / 1.5, (dots or fma) * 1.9
  local slope = math.deg(
    math.atan(0.75 * size.height / math.log(top / bottom), 0.86 * size.width / math.log(high / low))
  )
  for i, name in ipairs {"f32", "bf16", "i8"} do
    labels[#labels + 1] = (
      "set label %d %s at graph 0.03,%g font ',13' textcolor rgb colour[%d]"
    ):format(290 + i, quote(name), 1.02 - 0.06 * i, i)
  end
  local script = titles("The cases under the machine's roofline",
    "operations per byte that must be read; "
    .. "G: decode, G query heads per kv head; D: prefill")
    .. table.concat(labels, "\n") .. ([[

set lmargin at screen 0.11
set rmargin at screen 0.97
set bmargin at screen 0.11
set tmargin at screen 0.87
set logscale xy
set xrange [%g:%g]
set yrange [%s:%s]
set xlabel 'operations per byte' textcolor rgb ink
set format x '%%g'
set format y '%%.0s %%cFLOP/s'
set label 300 %s at first %g,%s right offset 0,0.7 font ',11' textcolor rgb quiet
set label 301 %s at first %g,%s right offset 0,0.7 font ',11' textcolor rgb quiet
set label 302 %s at first 0.36,%s center rotate by %g offset -0.7,0.7 font ',11' textcolor rgb quiet
plot for [i=0:1] data index i using 1:2 with lines linecolor rgb '#8C8C8C' linewidth 1.6 notitle, \
     for [i=1:3] data index 1+i using 1:2 with points pointtype shape[i] pointsize 1.1 \
       linecolor rgb colour[i] notitle
]]):format(
    low, high, number(bottom), number(top),
    quote(("f32 multiply-adds, %.0f GFLOP/s"):format(fma / 1e9)), high * 0.9, number(fma),
    quote(dots and ("bf16 dot products, %.0f GFLOP/s"):format(dots / 1e9) or ""),
    high * 0.9, number(dots or fma),
    quote(("memory, %.0f GB/s"):format(bandwidth / 1e9)), number(0.36 * bandwidth), slope
  )
  draw(folder, "roofline", script, table.concat(blocks, "\n\n"))
end

-- One panel per kind of curve, one line per name.
local function curves(folder, cases, samples)
  local panels, order = {}, {}
  for _, c in ipairs(cases) do
    if c.curve and samples[c.name][1] then
      local panel, line = c.curve:match "^(%w+):(.*)$"
      if not panels[panel] then
        panels[panel], order[#order + 1] = {lines = {}, names = {}}, panel
      end
      local p = panels[panel]
      if not p.lines[line] then p.lines[line], p.names[#p.names + 1] = {}, line end
      table.insert(p.lines[line], {c.tokens, medians(samples[c.name])})
    end
  end
  local about = {
    prefill = "prefill: causal, 8 heads, D 64",
    decode = "decode: one token, 32 heads, D 128, cache in memory",
  }
  local blocks = {}
  local script = {
    titles("Time against tokens", "f32, median time of a call"),
    [[
set multiplot
set logscale xy
set format x '%.0b%B'
set logscale x 2
set format y '%.0s %cs'
set xlabel 'tokens' textcolor rgb ink
set tmargin at screen 0.81
set bmargin at screen 0.12]],
  }
  for n, name in ipairs(order) do
    local first, left = #blocks, n == 1 and 0.07 or 0.57
    script[#script + 1] = n > 1 and "unset label\n" or nil
    script[#script + 1] = (
      "set label 110 %s at graph 0,1.07 left font ',13' textcolor rgb ink\n"
        .. "set lmargin at screen %g\nset rmargin at screen %g"
    ):format(quote(about[name]), left, left + 0.41)
    for i, line in ipairs(panels[name].names) do
      local rows = panels[name].lines[line]
      local block = {}
      for j, r in ipairs(rows) do block[j] = ("%d %s"):format(r[1], number(r[2])) end
      blocks[#blocks + 1] = table.concat(block, "\n") .. "\n"
      script[#script + 1] = (
        "set label %d %s at graph 0.04,%g left font ',11' textcolor rgb colour[%d]"
      ):format(120 + i, quote(line), 1.02 - 0.06 * i, i)
    end
    script[#script + 1] = (
      "plot for [i=1:%d] data index %d+i-1 using 1:2 with linespoints pointtype shape[i] "
        .. "linewidth 1.6 linecolor rgb colour[i] notitle"
    ):format(#panels[name].names, first)
  end
  script[#script + 1] = "unset multiplot"
  draw(folder, "time", table.concat(script, "\n"), table.concat(blocks, "\n\n"))
end

--- Writes roofline and time, each as SVG and PNG, into folder (which ends in "/").
function pictures.draw(folder, cases, samples)
  if ceiling("read", cases, samples) and ceiling("fma", cases, samples) then
    roofline(folder, cases, samples)
  end
  for _, c in ipairs(cases) do
    if c.curve then return curves(folder, cases, samples) end
  end
end

return pictures
