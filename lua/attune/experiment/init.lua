--- Declares an experiment: what to vary, what to measure, what it claims.
--
--     return require "attune.experiment" {
--       name = "mqa_vs_mha", about = "the question in one sentence",
--       fixed = {heads = 32}, grid = {kv_heads = {32, 8, 1}},
--       trial = function(p, t) return {seconds = t:time(function() .. end)} end,
--     }
--
-- Every worker process loads this file, so it must not load the code that draws plots: the
-- check of a plot's declaration is in attune.plot.spec, which loads nothing else of plot/.
local axes = require "attune.experiment.axes"
local check_plot = require "attune.plot.spec"
local check_reference = require "attune.results.reference".check
local files = require "attune.util.files"
local limits = require "attune.results.schema".limits
local check_names = require "attune.experiment.names"
local place = require "attune.place"
local rows = require "attune.results.rows"
local script_text = require "attune.experiment.script_text"
local sweep = require "attune.experiment.points"
local suggest = require "attune.util.suggest"
local sorted_keys = require "attune.util.tables".sorted_keys

---@type table<string, type>
local fields = {
  name = "string",
  about = "string",
  argument = "string",
  fixed = "table",
  grid = "table",
  list = "table",
  zip = "table",
  sample = "table",
  seeds = "table",
  where = "function",
  derived = "table",
  order = "table",
  quick = "table",
  metrics = "table",
  uses = "table",
  timing = "boolean",
  reuse = "boolean",
  environment = "function",
  rounds = "number",
  stop_when = "table",
  budget = "number",
  timeout = "number",
  memory = "number",
  trial = "function",
  plots = "table",
  claims = "table",
  reference = "table",
}
local metric_fields = {unit = "string", better = "string", about = "string"}

local function fail(format, ...) error(("experiment: " .. format):format(...), 0) end

local function check_fields(where, t, known)
  for k, v in pairs(t) do
    if not known[k] then
      fail("unknown field '%s%s': %s", where, tostring(k), suggest(tostring(k), sorted_keys(known)))
    end
    if type(v) ~= known[k] then
      fail("%s%s: expected a %s, got a %s", where, k, known[k], type(v))
    end
  end
end

-- What --quick may replace besides values of parameters.
local quick_fields = {rounds = "number", timeout = "number", seeds = "table", budget = "number"}

-- The type that a name of `quick` has which is no parameter; nil for the name of a parameter. n is
-- that of sample, where there is one.
local function quick_field(e, name)
  return quick_fields[name] or name == "n" and e.sample and "number" or nil
end

local function check_parameters(e)
  local group_of = axes.check(e)
  for name, value in pairs(e.quick or {}) do
    local wanted = quick_field(e, name)
    if wanted and group_of[name] then
      fail("%s.%s: expected another name, as quick.%s is %s", group_of[name], name, name,
        name == "n" and "the n of sample" or "the field " .. name .. " of the experiment")
    end
    if wanted and type(value) ~= wanted then
      fail("quick.%s: expected a %s, got a %s", name, wanted, type(value))
    end
    if not group_of[name] and not wanted then
      local hint = suggest(tostring(name), sorted_keys(group_of))
      fail("unknown field 'quick.%s': %s", tostring(name), hint)
    end
    if group_of[name] == "derived" then
      fail("quick.%s: expected a parameter of fixed or of an axis, got a derived one", name)
    end
  end
  for _, name in ipairs(e.order or {}) do
    if not group_of[name] then
      local hint = suggest(tostring(name), sorted_keys(group_of))
      fail("unknown parameter '%s' in order: %s", tostring(name), hint)
    end
  end
  for name in pairs(e.metrics or {}) do
    local clash = rows.taken(name, group_of, e.metrics)
    if clash then fail("metrics.%s: %s", tostring(name), clash) end
  end
  return group_of
end

-- Bytes of what results keep of a metric.
local max_metric_bytes = {unit = limits.unit, about = limits.text}

local function check_metric(name, metric)
  if #tostring(name) > limits.name then
    fail("metrics.%.40s..: expected a name of at most %d bytes, got %d", tostring(name),
      limits.name, #tostring(name))
  end
  if type(metric) ~= "table" then
    fail('metrics.%s: expected a table such as {unit = "s", better = "lower"}, got a %s',
      tostring(name), type(metric))
  end
  check_fields("metrics." .. name .. ".", metric, metric_fields)
  if metric.better and metric.better ~= "lower" and metric.better ~= "higher" then
    fail("metrics.%s.better: expected 'lower' or 'higher', got '%s'", name, metric.better)
  end
  for field, max in pairs(max_metric_bytes) do
    if metric[field] and #metric[field] > max then
      fail("metrics.%s.%s: expected at most %d bytes, got %d", name, field, max, #metric[field])
    end
  end
end

local max_text_bytes = limits.text -- of what claims.json keeps

local function check_claim(claim, i, group_of)
  local ok = type(claim) == "table" and type(claim[1]) == "string" and type(claim[2]) == "function"
  if not ok then fail("claims[%d]: expected {text, function}", i) end
  check_names.needs(claim.needs, i, group_of)
  for key, value in pairs(claim) do
    if key ~= 1 and key ~= 2 and key ~= "needs" then
      if key ~= "source" and key ~= "paper" then
        fail("claims[%d]: unknown field '%s': %s", i, tostring(key),
          suggest(tostring(key), {"needs", "paper", "source"}))
      end
      local is_text = type(value) == "string" and #value <= max_text_bytes
      local is_number = key == "paper" and type(value) == "number"
      if not is_text and not is_number then
        fail("claims[%d].%s: expected %s, got a %s", i, key,
          key == "paper" and "a number or a text" or "a text", type(value))
      end
    end
  end
end

local function check_lists(e, group_of)
  for i, name in ipairs(e.uses or {}) do
    if type(name) ~= "string" or not name:find "^[%w_-]+$" or name == e.name then
      fail("uses[%d]: expected the name of another experiment, got %s", i, tostring(name))
    end
  end
  for name, metric in pairs(e.metrics or {}) do check_metric(name, metric) end
  for i, plot in ipairs(e.plots or {}) do
    if type(plot) ~= "table" or type(plot.kind) ~= "string" then
      fail("plots[%d]: expected a table with a kind, got %s", i, type(plot))
    end
    check_plot(plot, i)
    check_names.plot(plot, i, e, group_of)
  end
  for name in pairs(next(e.metrics or {}) and e.stop_when or {}) do
    if not e.metrics[name] then
      fail("stop_when: unknown metric '%s': %s", name, suggest(name, sorted_keys(e.metrics)))
    end
  end
  for i, claim in ipairs(e.claims or {}) do check_claim(claim, i, group_of) end
  local why = check_reference(e.reference or {})
  if why then fail("%s", why) end
  check_names.reference(e.reference or {}, group_of)
end

local max_rounds, max_seconds = 100000, 1e8

local function check_numbers(e)
  local rounds = e.rounds
  if rounds and (math.type(rounds) ~= "integer" or rounds < 1 or rounds > max_rounds) then
    fail("rounds: expected an integer from 1 to %d, got %s", max_rounds, rounds)
  end
  if e.budget and not (e.budget > 0 and e.budget <= max_seconds) then
    fail("budget: expected seconds above 0 and at most %d, got %s", max_seconds, e.budget)
  end
  for name, width in pairs(e.stop_when or {}) do
    if type(name) ~= "string" or type(width) ~= "number" or not (width > 0 and width < 1) then
      fail("stop_when: expected metrics with a relative half-width between 0 and 1, such as "
        .. "{seconds = 0.02}, got %s = %s", tostring(name), tostring(width))
    end
  end
  if e.timeout and not (e.timeout > 0 and e.timeout <= max_seconds) then
    fail("timeout: expected seconds above 0 and at most %d, got %s", max_seconds, e.timeout)
  end
  if e.memory and not (e.memory > 0 and e.memory < math.huge) then
    fail("memory: expected bytes above 0, got %s", e.memory)
  end
end

local experiment = {}

-- Whether a script is loaded that was checked before: checks of a large sweep take a while.
local is_checked = false

--- Checks a declaration and returns it, marked as one. Raises an error for the first mistake.
---@param e attune.Experiment
---@return attune.Experiment
function experiment.declare(e)
  if is_checked then return setmetatable(e, experiment.type) end
  if type(e) ~= "table" then fail("expected a table of fields, got a %s", type(e)) end
  check_fields("", e, fields)
  if not e.name then fail("name: expected letters, digits, - and _, got none") end
  if not e.name:find "^[%w_-]+$" then
    fail("name: expected letters, digits, - and _, got '%s'", e.name)
  end
  if not e.trial then fail("trial: expected a function, got none") end
  if not (e.grid or e.fixed or e.list or e.zip or e.sample) then
    fail "grid: expected grid or fixed, got neither (nor list, zip, sample)"
  end
  check_numbers(e)
  check_lists(e, check_parameters(e))
  return setmetatable(e, experiment.type)
end

experiment.type = {__name = "attune.experiment"}

---@return boolean whether declare made this value
function experiment.is(value) return getmetatable(value) == experiment.type end

-- The message of a failed require without the list of all places where Lua looked.
local function without_places(message, path)
  local first = message:match "^([^\n]-: module '[^'\n]*' not found):\n\tno field"
  if not first then return message end
  local original = require "attune.experiment.original"
  return ("%s in its folder (%s), nor where Lua looks%s"):format(first, files.folder_of(path),
    original(path))
end

local expected_script = "%s: expected a script that returns an experiment "
  .. '(return require "attune.experiment" {..}), got %s'

-- A script may require modules of its own folder, wherever attune was started, and of the folder in
-- which it was started. attune's own modules come before both.
local function let_find_modules(folder)
  local patterns, seen = {}, {}
  local function add(list)
    for pattern in list:gmatch "[^;]+" do
      if not seen[pattern] then patterns[#patterns + 1], seen[pattern] = pattern, true end
    end
  end
  add(("%s/?.lua;%s/?/init.lua"):format(place.lua, place.lua))
  if not folder:find "[?;]" then add(("%s/?.lua;%s/?/init.lua"):format(folder, folder)) end
  add(package.path)
  add "./?.lua;./?/init.lua"
  package.path = table.concat(patterns, ";")
end

-- Modules that the command loads and a worker does not, or not always.
local of_command = {argparse = true, luv = true, readline = true}

-- What is known of a text: the hash of its essence, and the modules that it names. A worker reads
-- the same script before every trial.
local known_texts = {}
local function known_text(text)
  local known = known_texts[text]
  if not known then
    known = {
      hash = sweep.hash(script_text.essence(text)),
      requires = script_text.requires(text),
    }
    known_texts[text] = known
  end
  return known
end

-- The file of a module in a script's folder; nil for one of attune's or from elsewhere.
local function file_of(name, folder)
  if name:find "^attune" or of_command[name] or folder:find "[?;]" then return nil end
  return package.searchpath(name, ("%s/?.lua;%s/?/init.lua"):format(folder, folder))
end

-- Modules that were loaded from elsewhere, as last seen: {[folder] = {[name] = module}}. A worker
-- looks at all of them before every trial.
local elsewhere = {}

-- The modules that were loaded from a script's folder.
local function loaded_modules(folder)
  local list, known = {}, elsewhere[folder] or setmetatable({}, {__mode = "v"})
  elsewhere[folder] = known
  for name, module in next, package.loaded do
    if type(name) == "string" and not rawequal(known[name], module) then
      local is_here = file_of(name, folder) ~= nil
      if is_here then list[#list + 1] = name end
      known[name] = not is_here and module or nil
    end
  end
  return list
end

--- The script of an experiment that another one uses: NAME.lua in the same folder.
---@param path string of the script that uses it
---@param name string
---@return string
function experiment.script_of(path, name)
  return ("%s/%s.lua"):format(files.folder_of(path), name)
end

-- A fingerprint of the script, of those modules of its folder that it names or has loaded, and of
-- the experiments that it uses. It changes with what a trial does, not with plots, claims or the
-- choice of points.
local function fingerprint(path, source, uses)
  local folder, parts = files.folder_of(path), {}
  local function add(name, text)
    parts[#parts + 1] = name .. " " .. known_text(text).hash
  end
  local seen = {}
  local function add_modules(names)
    for _, name in ipairs(names) do
      local file = not seen[name] and file_of(name, folder)
      local text = file and files.read(file)
      seen[name] = true
      if text then
        add(name, text)
        add_modules(known_text(text).requires)
      end
    end
  end
  add_modules(known_text(source).requires)
  add_modules(loaded_modules(folder))
  for _, name in ipairs(uses or {}) do
    local text = files.read(experiment.script_of(path, name))
    if text then add(name, text) end
  end
  table.sort(parts)
  return sweep.hash(known_text(source).hash .. "\n" .. table.concat(parts, "\n"))
end

local max_script_bytes = 1 << 26

-- Loads a script as text, never as bytecode.
local function load_script(path)
  local text, why = files.read(path, max_script_bytes)
  if not text then return nil, why end
  text = text:gsub("^\xEF\xBB\xBF", "") -- a byte order mark, which Lua skips too
  -- The first line may name the program that runs the script.
  local chunk, syntax = load((text:gsub("^#[^\n]*", "")), "@" .. path, "t")
  if not chunk then return nil, syntax end
  let_find_modules(files.folder_of(path))
  local ok, result = xpcall(chunk, tostring)
  os.setlocale "C" -- numbers are written with a point, whatever the script has set
  if not ok then
    result = without_places(result, path)
    local named = result:sub(1, #path) == path
    return nil, (named and "" or path .. ": ") .. result
  end
  if not experiment.is(result) then return nil, expected_script:format(path, type(result)) end
  result.source = fingerprint(path, text, result.uses)
  return result
end

--- Loads a script as text, never as bytecode. Modules of its folder are loaded anew.
---@param path string
---@return attune.Experiment? experiment nil when the script cannot be read, has a syntax error,
--- raises an error or returns something else
---@return string? message
function experiment.load(path)
  for _, name in ipairs(loaded_modules(files.folder_of(path))) do package.loaded[name] = nil end
  return load_script(path)
end

--- Loads a script that this process has loaded before as if it had not, so that nothing of an
--- earlier trial stays in it.
---@param path string
---@return attune.Experiment? experiment
---@return string? message
function experiment.reload(path)
  is_checked = true
  local ok, e, why = pcall(experiment.load, path)
  is_checked = false
  if not ok then error(e, 0) end
  return e, why
end

-- Other values of `quick` for a copy of a declaration.
local function apply_quick(copy, e)
  for name, value in pairs(e.quick or {}) do
    local is_field = quick_field(e, name) ~= nil
    if is_field and name == "n" then
      local sample = {}
      for field, old in pairs(copy.sample or {}) do sample[field] = old end
      sample.n = value
      copy.sample = copy.sample and sample
    elseif is_field then
      copy[name] = value
    else
      local is_list = type(value) == "table" and axes.shown(value) == nil
      axes.override(copy, name, is_list and value or {value})
    end
  end
end

--- A copy of the declaration as one run uses it: defaults filled in, the values of `quick` applied
--- when asked, then those of `set`. Field `parameters` lists all parameter names in order; `total`
--- is the number of trials of a point: its rounds times its seeds; `declared` is e.
---@param e attune.Experiment
---@param options {quick?: boolean, set?: table<string, any[]>, rounds?: integer}
---@return attune.Experiment
function experiment.narrowed(e, options)
  local copy = setmetatable({}, experiment.type)
  for k, v in pairs(e) do copy[k] = v end
  copy.fixed, copy.grid = {}, {}
  for k, v in pairs(e.fixed or {}) do copy.fixed[k] = v end
  for k, v in pairs(e.grid or {}) do copy.grid[k] = v end
  if options.quick then apply_quick(copy, e) end
  for name, values in pairs(options.set or {}) do axes.override(copy, name, values) end
  check_numbers(copy)
  axes.check(copy)
  copy.rounds = options.rounds or copy.rounds or (copy.seeds and 1 or 3)
  copy.total = copy.rounds * (copy.seeds and #copy.seeds or 1)
  copy.timeout = copy.timeout or 600
  copy.timing = copy.timing ~= false
  copy.parameters = axes.names(copy)
  copy.declared = e
  return copy
end

-- Whether Lua runs the script that declares as its program: `lua5.4 script.lua`. The script's own
-- function is the direct caller, or is gone after `return require "attune.experiment" {..}`, which
-- is a tail call: then no other Lua function runs. Level 3 is the caller of __call.
local function is_program()
  local words = rawget(_G, "arg")
  if type(words) ~= "table" or type(words[0]) ~= "string" or words[-1] == nil then return false end
  local caller = debug.getinfo(3, "S")
  if caller and caller.what == "main" then return caller.source == "@" .. words[0] end
  local level = 3
  while caller do
    if caller.what ~= "C" then return false end
    level = level + 1
    caller = debug.getinfo(level, "S")
  end
  return true
end

-- The command stands above this folder, which needs nothing of it: it is only started.
local command = "attune.cli"

-- Runs the script of this process as `attune run SCRIPT ..` does, with the words after its name.
local function run_program()
  local words = {"run", arg[0], table.unpack(arg)}
  rawset(_G, "arg", words)
  os.exit(require(command)(words), true)
end

return setmetatable(experiment, {__call = function(_, e)
  local declared = experiment.declare(e)
  if is_program() then run_program() end
  return declared
end})
