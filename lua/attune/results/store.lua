--- Results on disk, and the way from there to the table of results/schema.
--
--     DIR/experiment.json   the declaration as data: name, parameters in order, metrics, plots,
--                           texts of claims
--     DIR/trials/*.jsonl    one file per run: a header with provenance, then one record per trial
--     DIR/claims.json       verdicts of the last run
--     DIR/plots/  DIR/report.html  DIR/report.md
--
-- types/results.lua declares a record and the description in experiment.json.
local uv = require "luv"
local files = require "attune.util.files"
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local stats = require "attune.results.statistics"

local store = {}

--- One round's value of a metric: the number itself, or the median of its samples.
---@param metric number|string|{samples: (number|string)[]} as JSON gives it
---@return number? value
---@return number[]? samples
function store.value(metric)
  if type(metric) ~= "table" then return json.number(metric) end
  local samples = {}
  for i, x in ipairs(metric.samples or {}) do samples[i] = json.number(x) end
  return stats.median(samples), samples
end

-- ---- writing ----------------------------------------------------------------------------------

-- nil and a message when the folder holds something other than results of this experiment.
local function check_folder(dir, name)
  local before = store.description(dir)
  if before then
    if before.name == name then return true end
    local format = "%s: expected results of '%s', got those of '%s'; "
      .. "choose another folder with --out"
    return nil, format:format(dir, name, before.name)
  end
  for _, file in ipairs(files.list(dir)) do
    if file ~= "log" then
      local format = "%s: expected an empty folder or one with results of '%s', "
        .. "got one with other files (%s)"
      return nil, format:format(dir, name, file)
    end
  end
  return true
end

--- Opens a folder for a run of an experiment and writes its experiment.json.
---@param dir string
---@param description attune.Description
---@return true? ok nil when dir is a file, cannot be written or holds something else
---@return string? message
function store.open(dir, description)
  local ok, why = files.make_folder(dir)
  if not ok then return nil, why end
  ok, why = check_folder(dir, description.name)
  if not ok then return nil, why end
  ok, why = files.make_folder(dir .. "/trials")
  if not ok then return nil, why end
  ok, why = files.write(dir .. "/experiment.json", json.encode(description) .. "\n")
  if not ok then return nil, why end
  return true
end

local Writer = {}
Writer.__index = Writer

--- A writer of records with a file of its own. The file is created with the first record, so that
--- a run that measures nothing leaves none.
---@param dir string
---@param provenance attune.Provenance
function store.writer(dir, provenance)
  local stamp, host = os.date "!%Y%m%dT%H%M%SZ", uv.os_gethostname():gsub("[^%w.-]", "_")
  local path = ("%s/trials/%s-%s-%d.jsonl"):format(dir, stamp, host, uv.os_getpid())
  return setmetatable({path = path, provenance = provenance}, Writer)
end

-- Writes one line with one call: under O_APPEND the lines of several writers never mix. A full disk
-- shows in the number of bytes written, or when the data is flushed.
function Writer:line(value)
  local text = json.encode(value) .. "\n"
  local n, why = uv.fs_write(self.fd, text, -1)
  if not n then return nil, why end
  if n < #text then return nil, "ENOSPC: no space left on device: " .. self.path end
  local ok, sync_why = uv.fs_fdatasync(self.fd)
  if not ok then return nil, sync_why end
  return true
end

---@param record attune.Record
---@return true? ok
---@return string? message
function Writer:write(record)
  if not self.fd then
    local fd, why = uv.fs_open(self.path, "a", files.file_mode)
    if not fd then return nil, why end
    self.fd = fd
    local ok, header_why = self:line {schema = schema.version, header = self.provenance}
    if not ok then return nil, header_why end
  end
  return self:line(record)
end

function Writer:close()
  if self.fd then uv.fs_close(self.fd) end
  self.fd = nil
end

--- Moves the records of earlier runs to trials/old, so that --fresh loses nothing.
---@return true? ok
---@return string? message
function store.clear(dir)
  local names = files.list(dir .. "/trials")
  for _, name in ipairs(names) do
    if name:find "%.jsonl$" then
      local ok, why = files.make_folder(dir .. "/trials/old")
      if ok then
        ok, why = uv.fs_rename(dir .. "/trials/" .. name, dir .. "/trials/old/" .. name)
      end
      if not ok then return nil, why end
    end
  end
  return true
end

--- Writes the verdicts of a run.
---@param dir string
---@param claims attune.ClaimVerdict[]
---@return true? ok
---@return string? message
function store.write_claims(dir, claims)
  local path = dir .. "/claims.json"
  local ok, why = files.write(path, json.encode(json.list(claims)) .. "\n")
  if not ok then return nil, ("%s: %s"):format(path, why) end
  return true
end

-- ---- reading ----------------------------------------------------------------------------------

--- The content of experiment.json.
---@return attune.Description? description
---@return string? message
function store.description(dir)
  local text, why = files.read(dir .. "/experiment.json")
  if not text then return nil, why end
  local value, message = json.decode(text)
  if type(value) ~= "table" or type(value.name) ~= "string" then
    message = message or "expected an experiment's description"
    return nil, ("%s/experiment.json: %s"):format(dir, message)
  end
  return value
end

--- All records and headers in the order of the files. A line that was cut off, because its writer
--- was killed, becomes a warning.
---@return attune.Record[] records
---@return attune.Provenance[] headers
---@return string[] warnings
function store.records(dir)
  local records, headers, warnings = {}, {}, {}
  local function read_line(name, number, line)
    local value, why = json.decode(line)
    if type(value) ~= "table" then
      local format = "trials/%s: line %d is no record (%s)"
      warnings[#warnings + 1] = format:format(name, number, why or "not a table")
    elseif value.header then
      value.header.file = name
      headers[#headers + 1] = value.header
    elseif value.hash and value.round then
      records[#records + 1] = value
    else
      warnings[#warnings + 1] = ("trials/%s: line %d is no record"):format(name, number)
    end
  end
  for _, name in ipairs(files.list(dir .. "/trials")) do
    if name:find "%.jsonl$" then
      local number = 0
      for line in (files.read(dir .. "/trials/" .. name) or ""):gmatch "[^\n]+" do
        number = number + 1
        read_line(name, number, line)
      end
    end
  end
  return records, headers, warnings
end

--- The record that counts for each point and round: the first complete one (ok or skipped), else
--- the last one.
---@param records attune.Record[]
---@return table<string, attune.Record> by_key keys are "hash:round"
---@return string[] order keys in order of first appearance
function store.chosen(records)
  local by_key, order = {}, {}
  for _, record in ipairs(records) do
    local key = record.hash .. ":" .. record.round
    local before = by_key[key]
    if not before then order[#order + 1] = key end
    if not before or not (before.status == "ok" or before.status == "skipped") then
      by_key[key] = record
    end
  end
  return by_key, order
end

local severity = {ok = 0, skipped = 1, failed = 2, oom = 3, timeout = 4}

local function add_round(point, record)
  local status = record.status
  if severity[status] == nil then return end
  if status ~= "ok" then
    local first = point.status == "ok" and point.rounds == 0
    if first or severity[status] > severity[point.status] then
      point.status, point.reason = status, record.reason
    end
    return
  end
  point.rounds = point.rounds + 1
  for name, metric in pairs(record.metrics or {}) do
    local value, samples = store.value(metric)
    if value then
      local m = point.metrics[name] or {values = {}, samples = {}, rounds = {}}
      point.metrics[name] = m
      m.values[#m.values + 1] = value
      m.rounds[#m.rounds + 1] = record.round
      m.samples[#m.samples + 1] = samples or {value}
      if type(metric) == "table" and metric.unsteady then m.unsteady = true end
    end
  end
end

local function all_metrics(description, points)
  local list, seen = {}, {}
  for _, m in ipairs(description.metrics or {}) do
    list[#list + 1], seen[m.name] = m, true
  end
  local extra = {}
  for _, point in ipairs(points) do
    for name in pairs(point.metrics) do
      if not seen[name] then
        seen[name] = true
        extra[#extra + 1] = name
      end
    end
  end
  table.sort(extra)
  for _, name in ipairs(extra) do list[#list + 1] = {name = name} end
  return list
end

local function varied_names(parameters, points)
  local varied = {}
  for _, name in ipairs(parameters) do
    local first, differs
    for i, point in ipairs(points) do
      local value = point.parameters[name]
      if i == 1 then first = value elseif value ~= first then differs = true end
    end
    if differs then varied[#varied + 1] = name end
  end
  return varied
end

-- The records that count, in sweep order and then by round.
local function in_sweep_order(records)
  local by_key, order = store.chosen(records)
  local list = {}
  for i, key in ipairs(order) do list[i] = by_key[key] end
  table.sort(list, function(x, y)
    if x.index ~= y.index then return x.index < y.index end
    if x.hash ~= y.hash then return x.hash < y.hash end
    return x.round < y.round
  end)
  return list
end

-- Points with their values, from records in sweep order. Adds the records' warnings to the list.
local function collect_points(records, warnings)
  local points, by_hash = {}, {}
  for _, record in ipairs(records) do
    local point = by_hash[record.hash]
    if not point then
      point = {
        hash = record.hash,
        index = record.index,
        parameters = record.parameters,
        status = "ok",
        rounds = 0,
        metrics = {},
      }
      by_hash[record.hash] = point
      points[#points + 1] = point
    end
    add_round(point, record)
    for _, text in ipairs(record.warnings or {}) do warnings[#warnings + 1] = text end
  end
  for _, point in ipairs(points) do
    for _, m in pairs(point.metrics) do
      for k, v in pairs(stats.summary(m.values)) do m[k] = v end
    end
  end
  return points
end

--- Everything that a folder of results contains.
---@param dir string
---@param of? table<string, boolean> {[hash] = true}: these points only
---@return attune.Results? results
---@return string? message
function store.read(dir, of)
  local kind = files.kind(dir)
  if kind ~= "directory" then
    return nil, dir .. ": expected a folder of results, got " .. (kind or "nothing")
  end
  local description, why = store.description(dir)
  if not description then
    return nil, ("%s: expected a folder of results: %s"):format(dir, why)
  end
  local records, headers, warnings = store.records(dir)
  local wanted = {}
  for _, record in ipairs(in_sweep_order(records)) do
    if not of or of[record.hash] then wanted[#wanted + 1] = record end
  end
  local points = collect_points(wanted, warnings)
  return schema.results {
    dir = dir,
    name = description.name,
    about = description.about,
    quick = description.quick,
    script = description.script,
    command = description.command,
    rounds = description.rounds,
    parameters = description.parameters,
    varied = varied_names(description.parameters, points),
    metrics = all_metrics(description, points),
    plots = description.plots or {},
    claims = json.decode(files.read(dir .. "/claims.json") or "[]") or {},
    provenance = headers,
    warnings = warnings,
    points = points,
  }
end

return store
