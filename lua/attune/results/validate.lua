--- Checks records, descriptions and claims against results/schema.
--
-- A folder of results may come from a stranger, and a trial may answer anything. What passes these
-- checks has the declared types and is within schema.limits, so that no reader of results meets a
-- surprise. Fields that the schema does not name are left alone: a newer version may write them.
--
-- A check is a function(value) that returns nil, or a message such as ".unit: expected .., got ..".
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local text = require "attune.util.text"
local sorted_keys = require "attune.util.tables".sorted_keys

local limits = schema.limits

local function got(value)
  if type(value) == "string" then
    local shown = #value > 40 and value:sub(1, 40) .. ".." or value
    return ("'%s'"):format(text.printable(shown))
  end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  return value == nil and "nothing" or "a " .. type(value)
end

local function expected(what, value) return (": expected %s, got %s"):format(what, got(value)) end

local function string_of(max_bytes, pattern, what)
  return function(value)
    if type(value) ~= "string" then return expected(what or "a text", value) end
    if #value > max_bytes then
      return (": expected at most %d bytes, got %d"):format(max_bytes, #value)
    end
    if pattern and not value:find(pattern) then return expected(what, value) end
  end
end

local function one_of(names)
  local list = sorted_keys(names)
  local what = "one of " .. table.concat(list, ", ")
  return function(value)
    if type(value) ~= "string" or not names[value] then return expected(what, value) end
  end
end

local function integer_from(min)
  return function(value)
    if math.type(value) ~= "integer" or value < min or value > 1 << 53 then
      return expected("an integer of at least " .. min, value)
    end
  end
end

local function a_boolean(value)
  if type(value) ~= "boolean" then return expected("true or false", value) end
end

-- A number, or one of the texts that stand for NaN and the infinities.
local function a_number(value)
  if type(value) ~= "number" and not (type(value) == "string" and json.number(value)) then
    return expected("a number", value)
  end
end

local function a_plain_number(value)
  if type(value) ~= "number" then return expected("a number", value) end
end

local function optional(check)
  return function(value)
    if value ~= nil then return check(value) end
  end
end

local function list_of(check, max_count)
  return function(value)
    if type(value) ~= "table" then return expected("a list", value) end
    local count = 0
    for key in next, value do
      count = count + 1
      if math.type(key) ~= "integer" or key < 1 then return expected("a list", value) end
      if count > max_count then return (": expected at most %d entries"):format(max_count) end
    end
    for i = 1, count do
      local why = check(value[i])
      if why then return ("[%d]%s"):format(i, why) end
    end
  end
end

-- A table from names to values, at most max_count of them.
local function map_of(check, max_count)
  local check_name = string_of(limits.name, ".", "a name")
  return function(value)
    if type(value) ~= "table" then return expected("a table", value) end
    local count = 0
    for name, item in next, value do
      count = count + 1
      if count > max_count then return (": expected at most %d entries"):format(max_count) end
      local why = check_name(name)
      if why then return why end
      why = check(item)
      if why then return ("." .. text.printable(name) .. why) end
    end
  end
end

local function fields_of(checks)
  local names = sorted_keys(checks)
  return function(value)
    if type(value) ~= "table" then return expected("a table", value) end
    for _, name in ipairs(names) do
      local why = checks[name](value[name])
      if why then return "." .. name .. why end
    end
  end
end

local a_name = string_of(limits.name, ".", "a name")
local a_text = string_of(limits.text)
local a_message = string_of(limits.message)
local an_identifier = string_of(limits.name, "^[%a_][%w_]*$", "letters, digits and _")
local a_file_name = string_of(limits.name, "^[%w_-]+$", "letters, digits, - and _")

-- The value of a parameter.
local function a_scalar(value)
  if type(value) == "string" then return a_text(value) end
  if type(value) ~= "number" and type(value) ~= "boolean" then
    return expected("a number, a text or true or false", value)
  end
end

local scalars = list_of(a_scalar, limits.list)
local function scalar_or_list(value)
  if type(value) ~= "table" then return a_scalar(value) end
  return scalars(value)
end

local samples = fields_of {
  samples = list_of(a_number, limits.samples),
  unsteady = optional(a_boolean),
  cause = optional(one_of(schema.causes)),
}

local function a_metric(value)
  if type(value) ~= "table" then return a_number(value) end
  return samples(value)
end

local answer_fields = {
  status = one_of(schema.statuses),
  reason = optional(a_message),
  metrics = optional(map_of(a_metric, limits.metrics)),
  warnings = optional(list_of(a_message, limits.list)),
  seconds = optional(a_plain_number),
  peak_rss = optional(a_plain_number),
  core_peak = optional(a_plain_number),
  source = optional(string_of(limits.name)),
  signal = optional(string_of(limits.name)),
  output = optional(a_message),
}

local record_fields = {
  schema = optional(integer_from(1)),
  hash = string_of(16, "^%x+$", "hexadecimal digits"),
  index = integer_from(1),
  round = integer_from(1),
  attempt = optional(integer_from(1)),
  seed = optional(integer_from(0)),
  parameters = map_of(a_scalar, limits.parameters),
}
for name, check in pairs(answer_fields) do record_fields[name] = check end
local an_answer, a_record = fields_of(answer_fields), fields_of(record_fields)

local a_reference_line = fields_of {
  x = optional(a_scalar),
  y = optional(a_plain_number),
  text = optional(a_text),
}

local function a_name_or_number(value)
  if type(value) == "string" then return a_name(value) end
  return a_plain_number(value)
end

local some_names_or_numbers = list_of(a_name_or_number, limits.list)
local function names_or_number(value)
  if type(value) ~= "table" then return a_name_or_number(value) end
  return some_names_or_numbers(value)
end

local plot_fields = {
  kind = one_of(schema.plot_kinds),
  where = optional(map_of(scalar_or_list, limits.parameters)),
  against = optional(map_of(scalar_or_list, limits.parameters)),
  order = optional(list_of(a_scalar, limits.list)),
  base = optional(integer_from(2)),
  band = optional(a_boolean),
  stacked = optional(a_boolean),
  parts = optional(list_of(a_name, limits.list)),
  lines = optional(list_of(a_reference_line, limits.list)),
  peak = optional(names_or_number),
  bandwidth = optional(a_name_or_number),
  name = optional(a_file_name),
  log = optional(one_of {x = true, y = true, xy = true, value = true}),
}
for _, name in ipairs {"x", "y", "value", "by", "facet", "also", "along", "label"} do
  plot_fields[name] = optional(a_name)
end
for _, name in ipairs {"across", "down", "title", "caption"} do
  plot_fields[name] = optional(a_text)
end

local plot_of = fields_of(plot_fields)
-- What else a kind needs is checked where the plot is drawn (plot/spec.lua).
local function a_plot(value)
  local why = plot_of(value)
  if why then return why end
  local kind = value.kind
  if value.x == nil and not (kind == "ecdf" or kind == "box" or value.along) then
    return ".x" .. expected("a name")
  end
  if value.y == nil and not value.parts and not (kind == "heat" and value.along) then
    return ".y" .. expected("a name")
  end
  if kind == "heat" and value.value == nil then return ".value" .. expected("a name") end
end

local description = fields_of {
  schema = integer_from(1),
  name = a_file_name,
  about = optional(a_text),
  quick = optional(a_boolean),
  script = optional(a_message),
  command = optional(a_message),
  source = optional(string_of(limits.name)),
  rounds = optional(integer_from(1)),
  stop_when = optional(map_of(a_plain_number, limits.metrics)),
  seeds = optional(list_of(integer_from(0), limits.list)),
  points = optional(integer_from(0)),
  parameters = list_of(an_identifier, limits.parameters),
  axes = optional(list_of(fields_of {
    names = list_of(an_identifier, limits.parameters),
    points = list_of(list_of(a_scalar, limits.parameters), limits.list),
  }, limits.parameters)),
  metrics = list_of(fields_of {
    name = a_name,
    unit = optional(string_of(limits.unit)),
    better = optional(one_of {lower = true, higher = true}),
    about = optional(a_text),
  }, limits.metrics),
  plots = optional(list_of(a_plot, limits.list)),
  claims = optional(list_of(a_text, limits.list)),
  method = optional(fields_of {
    timing = optional(a_boolean),
    timeout = optional(a_plain_number),
    memory = optional(a_plain_number),
  }),
}

local claims = list_of(fields_of {
  text = a_text,
  verdict = one_of(schema.verdicts),
  detail = optional(a_message),
  source = optional(a_text),
  paper = optional(a_scalar),
  ours = optional(fields_of {
    centre = optional(a_number),
    lo = optional(a_number),
    hi = optional(a_number),
    kind = optional(a_name),
    rounds = optional(integer_from(0)),
  }),
}, limits.list)

local header_fields = {
  git = optional(fields_of {commit = optional(a_text), dirty = optional(a_boolean)}),
}
for _, name in ipairs {
  "time", "attune", "build", "blis", "lua", "system", "host", "cpu", "isa", "features", "governor",
  "huge_pages", "load", "script", "command", "source",
} do
  header_fields[name] = optional(a_message)
end
for _, name in ipairs {"cores", "threads", "l2", "l3", "memory"} do
  header_fields[name] = optional(integer_from(0))
end
local a_header = fields_of(header_fields)

local validate = {}

-- The message of a check, without the dot that a field's name begins with; nil when all is well.
local function run(check, value)
  local why = check(value)
  return why and why:gsub("^[.:]%s*", "")
end

-- Other versions of the files behind a description mean something else.
local function check_version(value)
  if math.type(value.schema) == "integer" and value.schema > schema.version then
    return ("schema: expected at most %d, got %d: a newer attune wrote it"):format(schema.version,
      value.schema)
  end
end

--- The content of experiment.json.
---@return string? message nil when it is valid
function validate.description(value)
  return run(description, value) or check_version(value)
end

--- A record of trials/*.jsonl.
---@return string? message
function validate.record(value) return run(a_record, value) end

--- What a trial's process answers: a record without the fields that the runner fills in.
---@return string? message
function validate.answer(value) return run(an_answer, value) end

--- The answer without fields that the schema does not have.
---@param value table a valid answer
---@return attune.Record
function validate.only_known(value)
  local record = {}
  for name in pairs(answer_fields) do record[name] = value[name] end
  for name, metric in pairs(record.metrics or {}) do
    if type(metric) == "table" then
      record.metrics[name] = {
        samples = metric.samples,
        unsteady = metric.unsteady,
        cause = metric.cause,
        warmups = type(metric.warmups) == "number" and metric.warmups or nil,
        batch = type(metric.batch) == "number" and metric.batch or nil,
      }
    end
  end
  return record
end

--- The header of a file of trials.
---@return string? message
function validate.header(value) return run(a_header, value) end

--- The content of claims.json.
---@return string? message
function validate.claims(value) return run(claims, value) end

return validate
