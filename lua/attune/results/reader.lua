--- The files of a folder of results, read and checked. Nothing outside the folder is read: a link
--- is refused, and so is what is no file.
local files = require "attune.util.files"
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local validate = require "attune.results.validate"

local limits = schema.limits

local reader = {}

--- The content of experiment.json.
---@param dir string
---@return attune.Description? description
---@return string? message
---@return "missing"|"broken"|nil code broken: the file is not whole
function reader.description(dir)
  local path = dir .. "/experiment.json"
  if not files.kind_inside(path) then
    return nil, path .. ": expected an experiment's description, got nothing", "missing"
  end
  local content, why = files.read_inside(path, limits.description)
  if not content then return nil, why end
  local value, message = json.decode(content)
  if message then return nil, ("%s: expected JSON: %s"):format(path, message), "broken" end
  why = validate.description(value)
  if why then return nil, ("%s: %s"):format(path, why) end
  return value
end

--- The content of claims.json; an empty list and a message when it cannot be used.
---@param dir string
---@return attune.ClaimVerdict[] claims
---@return string? message
function reader.claims(dir)
  local path = dir .. "/claims.json"
  if not files.kind_inside(path) then return {} end
  local content, why = files.read_inside(path, limits.description)
  local value
  if content then value, why = json.decode(content) end
  if not why then why = validate.claims(value) end
  if why then return {}, "claims.json is left out: " .. why end
  return value
end

-- Collects messages up to a number and counts the others.
local function message_list(max_count, rest)
  local list, left_out = {}, 0
  return {
    add = function(message)
      if #list < max_count then list[#list + 1] = message else left_out = left_out + 1 end
    end,
    all = function()
      if left_out > 0 then list[#list + 1] = rest:format(left_out) end
      return list
    end,
  }
end

local max_bad_lines = 20

-- Reads one line into records or headers. What a header says of all records of its file, each of
-- them gets: `source`, the fingerprint of the script, and `version`, that of attune. Returns a
-- message when the line is neither.
local function read_line(name, line, records, headers)
  if #line > limits.record then
    return ("expected at most %d bytes, got %d"):format(limits.record, #line)
  end
  local value, why = json.decode(line)
  if why then return why end
  if type(value) == "table" and value.header ~= nil then
    why = validate.header(value.header)
    if why then return "header." .. why end
    value.header.file, value.header.schema = name, value.schema
    headers[#headers + 1] = value.header
    return nil
  end
  why = validate.record(value)
  if why then return why end
  for parameter, x in pairs(value.parameters) do
    -- JSON has no infinities; see json.number.
    if type(x) == "string" then value.parameters[parameter] = json.number(x) or x end
  end
  local header = headers[#headers]
  if header and header.file == name then
    value.schema = value.schema or header.schema
    value.cpu, value.version = header.cpu, header.attune
    value.source = value.source or header.source
  end
  records[#records + 1] = value
end

--- All records and headers in the order of the files. A line that is no record, such as the last
--- one of a writer that was killed, is skipped and becomes a warning.
---@param dir string
---@return attune.Record[] records
---@return attune.Provenance[] headers
---@return string[] warnings
function reader.records(dir)
  local records, headers = {}, {}
  local bad = message_list(max_bad_lines, "and %d more lines are no records")
  for i, name in ipairs(files.list(dir .. "/trials")) do
    if i > limits.files then
      bad.add(("trials: only the first %d files are read"):format(limits.files))
      break
    end
    if name:find "%.jsonl$" then
      local content, why = files.read_inside(dir .. "/trials/" .. name, limits.file)
      if not content then bad.add(("trials/%s is skipped: %s"):format(name, why)) end
      local number = 0
      for line in (content or ""):gmatch "[^\n]+" do
        number = number + 1
        why = read_line(name, line, records, headers)
        if why then bad.add(("trials/%s: line %d is no record: %s"):format(name, number, why)) end
      end
    end
  end
  return records, headers, bad.all()
end

--- The warnings of records, up to a number of them.
---@param records attune.Record[]
---@return string[]
function reader.warnings(records)
  local list = message_list(limits.warnings, "and %d more warnings")
  for _, record in ipairs(records) do
    for _, warning in ipairs(record.warnings or {}) do list.add(warning) end
  end
  return list.all()
end

--- The key of a trial: its point and its round, and its seed where seeds are declared.
---@param hash string
---@param round integer
---@param seed? integer
---@return string
function reader.key(hash, round, seed)
  return seed and hash .. ":" .. round .. ":" .. seed or hash .. ":" .. round
end

-- Whether the later of two records of a trial counts.
local function replaces(later, earlier)
  if earlier.status == "ok" then return false end
  return earlier.status ~= "skipped" or later.status == "ok" or later.status == "skipped"
end

--- The record that counts for each trial: the first that is ok, else the last that is skipped, else
--- the last one.
---@param records attune.Record[]
---@param seeds? integer[] the declared ones: records of other seeds do not count
---@return table<string, attune.Record> by_key keys as reader.key makes them
---@return string[] order keys in order of first appearance
function reader.chosen(records, seeds)
  local by_key, order, is_seed = {}, {}, {}
  for _, seed in ipairs(seeds or {}) do is_seed[seed] = true end
  for _, record in ipairs(records) do
    if not seeds or is_seed[record.seed] then
      local key = reader.key(record.hash, record.round, seeds and record.seed)
      local before = by_key[key]
      if not before then order[#order + 1] = key end
      if not before or replaces(record, before) then by_key[key] = record end
    end
  end
  return by_key, order
end

--- Whether a trial needs no other run. That a trial was skipped is what its script decided, so that
--- another script decides again.
---@param record? attune.Record that counts for the trial
---@param source string fingerprint of the script as it is now
---@return boolean
function reader.is_complete(record, source)
  if not record then return false end
  return record.status == "ok" or record.status == "skipped" and record.source == source
end

--- A text that is the same for equal lists of values of parameters.
---@param row attune.Scalar[]
---@return string
function reader.row_key(row)
  local parts = {}
  for i, value in ipairs(row) do
    -- JSON has no infinities; see json.number.
    value = type(value) == "string" and json.number(value) or value
    parts[i] = ("%s %s"):format(type(value), value)
  end
  return table.concat(parts, "\n")
end

local known_keys = setmetatable({}, {__mode = "k"})

--- A text that is the same for equal parameters. It is kept with the table, which must not change.
---@param parameters table<string, attune.Scalar>
---@return string
function reader.parameters_key(parameters)
  if known_keys[parameters] then return known_keys[parameters] end
  local parts = {}
  for name, value in pairs(parameters) do
    parts[#parts + 1] = ("%s=%s %s"):format(name, math.type(value) or type(value), tostring(value))
  end
  table.sort(parts)
  local key = table.concat(parts, "\n")
  known_keys[parameters] = key
  return key
end

--- Which point counts where several have the same parameters, as the script or attune changed
--- between runs: the last one that `source` measured, else the last one.
---@param records attune.Record[]
---@param source? string fingerprint of the script as it is now
---@return table<string, string> counting the hash that counts for each key of parameters
---@return table<string, string> key_of the key of parameters of each hash
function reader.counting(records, source)
  local counting, key_of, is_current = {}, {}, {}
  for _, record in ipairs(records) do
    local hash = record.hash
    local key = key_of[hash] or reader.parameters_key(record.parameters)
    key_of[hash] = key
    local current = source ~= nil and record.source == source
    if counting[key] ~= hash and (current or not is_current[key]) then
      counting[key], is_current[key] = hash, current
    end
  end
  return counting, key_of
end

--- Records of points that count; those that later ones supersede are left out.
---@param records attune.Record[]
---@param source? string
---@return attune.Record[]
---@return integer superseded how many are left out
function reader.current(records, source)
  local counting, key_of = reader.counting(records, source)
  local list = {}
  for _, record in ipairs(records) do
    if counting[key_of[record.hash]] == record.hash then list[#list + 1] = record end
  end
  return list, #records - #list
end

--- A sentence when trials were measured by another source than `source`, else nil.
---@param records attune.Record[] those that count
---@param source? string a fingerprint of the script, see experiment/script_text.lua
---@return string?
function reader.other_source(records, source)
  local other, complete = 0, 0
  for _, record in ipairs(records) do
    if record.status == "ok" or record.status == "skipped" then
      complete = complete + 1
      if source and record.source and record.source ~= source then other = other + 1 end
    end
  end
  if other == 0 then return nil end
  return ("%d of %d trials were measured before the script was edited; --fresh measures all again")
    :format(other, complete)
end

-- A folder inside a folder of results that is a link could lead anywhere.
local function check_inside(dir)
  for _, name in ipairs {"trials", "plots", "files", "uses", "slurm"} do
    local path = ("%s/%s"):format(dir, name)
    local kind = files.kind_inside(path)
    if kind and kind ~= "directory" then
      return nil, ("%s: expected a folder, got a %s"):format(path, kind)
    end
  end
  return true
end

--- Checks that dir is a folder of results and returns its description.
---@param dir string
---@return attune.Description? description
---@return string? message
function reader.open(dir)
  local kind = files.kind(dir)
  if kind ~= "directory" then
    return nil, dir .. ": expected a folder of results, got " .. (kind or "nothing")
  end
  local description, why = reader.description(dir)
  if not description then
    return nil, ("%s: expected a folder of results: %s"):format(dir, why)
  end
  local ok
  ok, why = check_inside(dir)
  if not ok then return nil, why end
  return description
end

reader.check_inside = check_inside

return reader
