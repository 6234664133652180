local folder = require "attune.cli.folder"
local gnuplot_formats = {"svg", "png", "pdf", "tex"}
local look = require "attune.plot.look"
local matching = require "attune.cli.matching"
local output = require "attune.cli.output"
local store = require "attune.results.store"
local uv = require "luv"

local plot = {
  summary = "draw the declared plots of a folder of results, or one from options, without a script",
}

local spec_options = {
  {"--kind", "KIND", "line (default), scatter, bars, heat, roofline, pareto, ecdf, box or pixels"},
  {"--x", "P", "a parameter; scatter, pareto, roofline: or a metric"},
  {"--y", "METRIC", "a metric; heat: a parameter"},
  {"--value", "METRIC", "heat: the metric in the cells"},
  {"--by", "P", "one line, bar or colour per value of this parameter"},
  {"--facet", "P", "one panel per value of this parameter"},
  {"--label", "P", "the parameter written beside each mark"},
  {"--along", "NAME", "line: y is a list, such as losses; heat: the value is; this names its axis"},
  {"--log", "AXES", "x, y or xy: logarithmic axes; value: logarithmic colours of heat"},
  {"--title", "TEXT", "above the figure"},
  {"--name", "NAME", "of the files; made from the options by default"},
}

local function one_of(names)
  return function(word)
    for _, name in ipairs(names) do
      if name == word then return word end
    end
    return nil, ("expected %s, got '%s'"):format(table.concat(names, ", "), word)
  end
end

-- "svg,png" as a list.
local function formats(words)
  local list = {}
  for word in words:gmatch "[^,]+" do
    local name, why = one_of(gnuplot_formats)(word)
    if not name then return nil, "--format: " .. why end
    list[#list + 1] = name
  end
  if #list == 0 then return nil, "--format: expected svg, png, pdf or tex, got none" end
  return list
end

local function theme(word)
  local name, why = one_of(look.names)(word)
  return name, why and "--theme: " .. why
end

function plot.options(parser)
  parser:argument("dir", "a folder of results"):convert(folder)
  for _, option in ipairs(spec_options) do
    parser:option(option[1], option[3]):argname(option[2])
  end
  parser:option("--where", "only points with this value: parameter=value; a,b allows several")
    :argname "P=V"
    :count "*"
  parser:option("--only", "only points for which this condition on parameters and metrics holds")
    :argname "EXPR"
  parser:option("--against", "y becomes a factor against the point with this value")
    :argname "P=V"
    :count "*"
  parser:option("--peak", "roofline: operations per second, or a metric"):argname "N"
  parser:option("--bandwidth", "roofline: bytes per second, or a metric"):argname "N"
  parser:option("--theme", "screen (default), print, dark or slides"):argname "NAME":convert(theme)
  parser:option("--format", "svg,png,pdf by default; also tex (for LaTeX)")
    :argname "F,.."
    :convert(formats)
  parser:flag("--term", "draw in the terminal and write no files")
end

local function scalar(word)
  if word == "true" then return true end
  if word == "false" then return false end
  return math.tointeger(tonumber(word)) or tonumber(word) or word
end

-- {"context=512,1024,heads=8"} as {context = {512, 1024}, heads = 8}.
local function conditions(words, name)
  local lists, wanted = {}, {}
  for _, word in ipairs(words) do
    local parameter
    for piece in word:gmatch "[^,]+" do
      local started, value = piece:match "^%s*([%a_][%w_]*)%s*=(.*)$"
      parameter = started or parameter
      if not parameter then break end
      lists[parameter] = lists[parameter] or {}
      table.insert(lists[parameter], scalar(value or piece))
    end
    if not parameter then
      return nil, ("%s: expected parameter=value, got '%s'"):format(name, word)
    end
  end
  for parameter, list in pairs(lists) do wanted[parameter] = #list == 1 and list[1] or list end
  return next(wanted) ~= nil and wanted or nil
end

-- The plot that the options declare; nil without options.
local function spec_of(args)
  local spec = {}
  for _, option in ipairs(spec_options) do
    local name = option[1]:sub(3)
    spec[name] = args[name]
  end
  for _, name in ipairs {"where", "against"} do
    local wanted, why = conditions(args[name] or {}, "--" .. name)
    spec[name] = wanted
    if why then return nil, why end
  end
  for _, name in ipairs {"peak", "bandwidth"} do
    spec[name] = args[name] and (tonumber(args[name]) or args[name])
  end
  if next(spec) == nil then return nil end
  spec.kind = spec.kind or (spec.value and "heat" or "line")
  return spec
end

-- The base name of the files of a plot from options, such as "seconds-context-kv_heads".
local function name_of(spec)
  if spec.name then return spec.name end
  local parts = {spec.kind ~= "line" and spec.kind or nil}
  for _, field in ipairs {"value", "y", "x", "along", "by", "facet"} do
    parts[#parts + 1] = spec[field] and spec[field]:gsub("[^%w_]", "_") or nil
  end
  return table.concat(parts, "-"):sub(1, 100)
end

local function terminal_width()
  local width = tonumber(os.getenv "COLUMNS")
  if uv.guess_handle(1) == "tty" then
    local tty = uv.new_tty(1, false)
    width = tty and tty:get_winsize() or width
    if tty then tty:close() end
  end
  return math.tointeger(width) or 80
end

-- Writes the figures to standard output. Returns an exit status: 1 where none can be drawn.
local function draw_in_terminal(results, plots)
  local drawer, problems, drawn = require "attune.plot", {}, 0
  local colour = uv.guess_handle(1) == "tty" and not os.getenv "NO_COLOR"
  for i, spec in ipairs(plots) do
    local figure, why = drawer.figure_of(results, spec, i)
    if figure then
      if drawn > 0 then output.write "\n" end
      for _, line in ipairs(figure.term(terminal_width(), colour)) do output.write(line .. "\n") end
      drawn = drawn + 1
    else
      problems[#problems + 1] = ("plot %s is left out: %s"):format(drawer.name(spec, i), why)
    end
  end
  if drawn == 0 then
    output.complain("attune plot", table.concat(problems, "; "))
    return 1
  end
  output.warn("attune plot", problems)
  return 0
end

function plot.run(args)
  local results, why = store.read(args.dir)
  if not results then
    output.complain("attune plot", why)
    return 2
  end
  local spec
  spec, why = spec_of(args)
  if why then
    output.complain("attune plot", why)
    return 2
  end
  if spec then
    local ok, wrong = pcall(require "attune.plot.spec", spec, 1)
    if not ok then
      -- A message names its field first, which is an option here; that of kind does not.
      local message = tostring(wrong):gsub("^plots%[1%]: ", "--")
      output.complain("attune plot", (message:gsub("^%-%-unknown kind", "--kind: unknown kind")))
      return 2
    end
    wrong = require "attune.plot".check_names(spec, results)
    if wrong then
      output.complain("attune plot", "--" .. wrong)
      return 2
    end
  end
  if args.only then
    local ok, kept = pcall(matching, results, args.only)
    if not ok then
      output.complain("attune plot", kept)
      return 2
    end
    results.points = kept
  end
  local plots = spec and {spec} or results.plots
  if #plots == 0 then
    output.line "The experiment declares no plots; --x, --y and --by draw one."
    return 0
  end
  if args.term then return draw_in_terminal(results, plots) end
  local options = {
    theme = args.theme, formats = args.format, plots = plots, names = spec and {name_of(spec)},
  }
  local made, failed = require "attune.plot".draw(results, args.dir, options)
  if not made then
    output.complain("attune plot", failed)
    return 1
  end
  for _, path in ipairs(made) do output.line(path) end
  output.warn("attune plot", failed)
  return 0
end

return plot
