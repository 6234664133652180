local files = require "attune.util.files"
local output = require "attune.cli.output"
local text = require "attune.util.text"

local new = {summary = "write a commented script of an experiment, to be changed"}

function new.options(parser)
  parser:argument("name", "of the experiment: letters, digits, - and _; NAME.lua is written")
end

local script = [[
--- What does this experiment ask? One sentence for people who read the script.
local attune = require "attune"

return require "attune.experiment" {
  name = "@NAME@",
  about = "How does the time of causal attention grow with the number of tokens?",

  -- Every combination of the values below is a point. `fixed` holds parameters with one value.
  fixed = {head_dim = 64},
  grid = {
    heads = {1, 8},
    tokens = {128, 256, 512, 1024},
  },
  -- Parameters that follow from others; and the points that make sense.
  derived = {flops = function(p) return 2 * p.heads * p.tokens ^ 2 * p.head_dim end},
  where = function(p) return p.heads * p.tokens <= 8192 end,

  -- Each round measures every point once. attune run --quick uses the smaller values here.
  rounds = 3,
  quick = {tokens = {128, 256}, rounds = 2},
  -- Limits of one trial: seconds and bytes.
  timeout = 60,
  memory = 4 << 30,

  -- Units choose the prefixes (ms, MiB); `better` gives ratios and comparisons their direction.
  metrics = {
    seconds = {unit = "s", better = "lower", about = "time of one call"},
    speed = {unit = "FLOP/s", better = "higher", about = "operations per second"},
  },

  -- One trial, in a process of its own. p holds the parameters and p.seed; t:time measures.
  -- return nil, "reason" says that a point does not apply.
  trial = function(p, t)
    local shape = {1, p.heads, p.tokens, p.head_dim}
    local q = attune.randn(shape, {seed = p.seed})
    local k = attune.randn(shape, {seed = p.seed + 1})
    local v = attune.randn(shape, {seed = p.seed + 2})
    local timing = t:time(function() attune.attention(q, k, v, {causal = true}) end, {budget = 0.1})
    table.sort(timing.samples)
    return {seconds = timing, speed = p.flops / timing.samples[#timing.samples // 2 + 1]}
  end,

  -- docs/plots.md lists the kinds: line, scatter, bars, heat, roofline, pareto, ecdf, box, pixels.
  plots = {
    {kind = "line", x = "tokens", y = "seconds", by = "heads", log = "xy",
      title = "Time of causal attention"},
  },

  -- A claim is held or failed where the whole interval says so, and undecided else.
  claims = {
    {"Twice the tokens take at least twice the time", function(r)
      return r:where {heads = 1}:ratio("seconds", {tokens = 256}, {tokens = 128}):above(2)
    end},
  },
}
]]

function new.run(args)
  local name = args.name:gsub("%.lua$", "")
  if not name:find "^[%w_-]+$" or name:find "^%-" then
    local format = "name: expected letters, digits, - and _, got '%s'"
    output.complain("attune new", format:format(args.name))
    return 2
  end
  local path = name .. ".lua"
  if files.kind_inside(path) then
    output.complain("attune new", path .. ": expected nothing there, as a file is never replaced")
    return 2
  end
  local ok, why = files.write(path, (script:gsub("@NAME@", name)))
  if not ok then
    output.complain("attune new", ("%s: %s"):format(path, why))
    return 1
  end
  output.line(("%s is written. Try: attune run %s --quick"):format(path, text.shell_word(path)))
  return 0
end

return new
