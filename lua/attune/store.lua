--- Results on disk, and the plain table that plots, reports and exports read.
--
--     DIR/experiment.json   the declaration as data: name, parameters in order, metrics, plots, claims' texts
--     DIR/trials/*.jsonl    one writer a file: a header with provenance, then a record a trial
--     DIR/claims.json       verdicts of the last run
--     DIR/plots/  DIR/report.html  DIR/report.md
--
-- A record: {schema, hash, index, round, attempt, status, reason?, seed, parameters, metrics, peak_rss, core_peak, seconds, load, warnings}.
-- A metric is a number, or {samples = {..}} of that round. status: ok, failed, timeout, oom, skipped.
--
-- `read` gives
--     {dir, name, about, quick, script, rounds, parameters = {names in order}, varied = {names with more than one value},
--      metrics = {{name, unit, better, about}, ..}, plots = {..}, claims = {{text, verdict, detail}, ..}, provenance = {{..}, ..}, warnings = {..},
--      points = {{hash, index, parameters, status, reason, rounds, metrics = {[name] = {median, lo, hi, iqr, n, values, samples}}}, ..}}
local uv = require "luv"
local files = require "attune.files"
local json = require "attune.json"
local stats = require "attune.stats"

local store = {schema = 1}

--- The number that a round's metric stands for: itself, or its samples' median.
function store.value(metric)
  if type(metric) ~= "table" then return json.number(metric) end
  local samples = {}
  for i, x in ipairs(metric.samples or {}) do samples[i] = json.number(x) end
  return stats.median(samples), samples
end

-- ---- writing --------------------------------------------------------------------------------------------------------

--- Opens DIR for a run of this experiment. nil and a message: DIR is a file, cannot be written, or holds another experiment.
function store.open(dir, description)
  local ok, why = files.make_folder(dir)
  if not ok then return nil, why end
  local before = store.description(dir)
  if before and before.name ~= description.name then
    return nil, ("%s: expected results of '%s', got those of '%s'; choose another folder with --out"):format(dir, description.name, before.name)
  end
  if not before then
    for _, name in ipairs(files.list(dir)) do
      if name ~= "log" then return nil, ("%s: expected an empty folder or one with results of '%s', got one with other files (%s)"):format(dir, description.name, name) end
    end
  end
  ok, why = files.make_folder(dir .. "/trials")
  if not ok then return nil, why end
  ok, why = files.write(dir .. "/experiment.json", json.encode(description) .. "\n")
  if not ok then return nil, why end
  return true
end

local Writer = {}
Writer.__index = Writer

--- A writer of records, with a file of its own. The file is made with the first record: a run that measures nothing leaves none.
function store.writer(dir, provenance)
  local stamp = os.date "!%Y%m%dT%H%M%SZ"
  return setmetatable({path = ("%s/trials/%s-%s-%d.jsonl"):format(dir, stamp, uv.os_gethostname():gsub("[^%w.-]", "_"), uv.os_getpid()),
    provenance = provenance}, Writer)
end

-- One write a line: with O_APPEND lines of several writers never mix. A full disk shows here or at fsync, and is told.
function Writer:line(value)
  local text = json.encode(value) .. "\n"
  local n, why = uv.fs_write(self.fd, text, -1)
  if not n then return nil, why end
  if n < #text then return nil, "ENOSPC: no space left on device: " .. self.path end
  local ok, sync_why = uv.fs_fdatasync(self.fd)
  if not ok then return nil, sync_why end
  return true
end

function Writer:write(record)
  if not self.fd then
    local fd, why = uv.fs_open(self.path, "a", 420) -- 0644
    if not fd then return nil, why end
    self.fd = fd
    local ok, header_why = self:line {schema = store.schema, header = self.provenance}
    if not ok then return nil, header_why end
  end
  return self:line(record)
end

function Writer:close()
  if self.fd then uv.fs_close(self.fd) end
  self.fd = nil
end

--- Puts the records of earlier runs aside, under trials/old: --fresh loses nothing.
function store.clear(dir)
  local names = files.list(dir .. "/trials")
  for _, name in ipairs(names) do
    if name:find "%.jsonl$" then
      local ok, why = files.make_folder(dir .. "/trials/old")
      if ok then ok, why = uv.fs_rename(dir .. "/trials/" .. name, dir .. "/trials/old/" .. name) end
      if not ok then return nil, why end
    end
  end
  return true
end

-- ---- reading --------------------------------------------------------------------------------------------------------

--- What experiment.json says; nil and a message.
function store.description(dir)
  local text, why = files.read(dir .. "/experiment.json")
  if not text then return nil, why end
  local value, message = json.decode(text)
  if type(value) ~= "table" or type(value.name) ~= "string" then return nil, ("%s/experiment.json: %s"):format(dir, message or "expected an experiment's description") end
  return value
end

--- All records and headers, in the files' order. A line that is cut off (its writer was killed) is passed over and told.
function store.records(dir)
  local records, headers, warnings = {}, {}, {}
  for _, name in ipairs(files.list(dir .. "/trials")) do
    if name:find "%.jsonl$" then
      local number = 0
      for line in (files.read(dir .. "/trials/" .. name) or ""):gmatch "[^\n]+" do
        number = number + 1
        local value, why = json.decode(line)
        if type(value) ~= "table" then warnings[#warnings + 1] = ("trials/%s: line %d is no record (%s)"):format(name, number, why or "not a table")
        elseif value.header then
          value.header.file = name
          headers[#headers + 1] = value.header
        elseif value.hash and value.round then records[#records + 1] = value
        else warnings[#warnings + 1] = ("trials/%s: line %d is no record"):format(name, number) end
      end
    end
  end
  return records, headers, warnings
end

--- The record that counts for each point and round: the first complete one (ok or skipped), else the last.
function store.chosen(records)
  local by_key, order = {}, {}
  for _, record in ipairs(records) do
    local key = record.hash .. ":" .. record.round
    local before = by_key[key]
    if not before then order[#order + 1] = key end
    if not before or not (before.status == "ok" or before.status == "skipped") then by_key[key] = record end
  end
  return by_key, order
end

local severity = {ok = 0, skipped = 1, failed = 2, oom = 3, timeout = 4}

local function add_round(point, record)
  if severity[record.status] == nil then return end
  if record.status ~= "ok" then
    if point.status == "ok" and point.rounds == 0 or severity[record.status] > severity[point.status] then
      point.status, point.reason = record.status, record.reason
    end
    return
  end
  point.rounds = point.rounds + 1
  for name, metric in pairs(record.metrics or {}) do
    local value, samples = store.value(metric)
    if value then
      local m = point.metrics[name] or {values = {}, samples = {}, rounds = {}}
      point.metrics[name] = m
      m.values[#m.values + 1], m.rounds[#m.rounds + 1] = value, record.round
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
      if i == 1 then first = point.parameters[name] elseif point.parameters[name] ~= first then differs = true end
    end
    if differs then varied[#varied + 1] = name end
  end
  return varied
end

--- Everything that a folder of results says, as one plain table; nil and a message when it is none. of: {hash = true}: these points alone.
---@param dir string
---@param of? table<string, boolean>
function store.read(dir, of)
  if files.kind(dir) ~= "directory" then return nil, dir .. ": expected a folder of results, got " .. (files.kind(dir) or "nothing") end
  local description, why = store.description(dir)
  if not description then return nil, ("%s: expected a folder of results: %s"):format(dir, why) end
  local records, headers, warnings = store.records(dir)
  local by_key, order = store.chosen(records)
  local points, by_hash = {}, {}
  table.sort(order, function(a, b)
    local x, y = by_key[a], by_key[b]
    if x.index ~= y.index then return x.index < y.index end
    if x.hash ~= y.hash then return x.hash < y.hash end
    return x.round < y.round
  end)
  for _, key in ipairs(order) do
    local record = by_key[key]
    if not of or of[record.hash] then
      local point = by_hash[record.hash]
      if not point then
        point = {hash = record.hash, index = record.index, parameters = record.parameters, status = "ok", rounds = 0, metrics = {}}
        by_hash[record.hash] = point
        points[#points + 1] = point
      end
      add_round(point, record)
      for _, text in ipairs(record.warnings or {}) do warnings[#warnings + 1] = text end
    end
  end
  for _, point in ipairs(points) do
    for _, m in pairs(point.metrics) do
      for k, v in pairs(stats.summary(m.values)) do m[k] = v end
    end
  end
  local claims = json.decode(files.read(dir .. "/claims.json") or "[]")
  return {dir = dir, name = description.name, about = description.about, quick = description.quick, script = description.script, rounds = description.rounds,
    parameters = description.parameters, varied = varied_names(description.parameters, points), metrics = all_metrics(description, points),
    plots = description.plots or {}, claims = claims or {}, provenance = headers, warnings = warnings, points = points, command = description.command}
end

return store
