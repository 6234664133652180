--- Results on disk, and the way from there to the table of results/schema.
--
--     DIR/experiment.json   the declaration as data: name, parameters in order, metrics, plots,
--                           texts of claims
--     DIR/trials/*.jsonl    one file per run: a header with provenance, then one record per trial
--     DIR/claims.json       verdicts of the last run
--     DIR/script.lua        the script of the last run
--     DIR/plots/  DIR/report.html  DIR/report.md
--
-- types/results.lua declares a record and the description in experiment.json.
local uv = require "luv"
local files = require "attune.util.files"
local json = require "attune.util.json"
local points = require "attune.results.points"
local reader = require "attune.results.reader"
local schema = require "attune.results.schema"
local text = require "attune.util.text"

local store = {
  chosen = reader.chosen,
  counting = reader.counting,
  parameters_key = reader.parameters_key,
  description = reader.description,
  is_complete = reader.is_complete,
  key = reader.key,
  other_source = reader.other_source,
  records = reader.records,
}

-- ---- writing ----------------------------------------------------------------------------------

-- What a killed run may leave in a folder whose experiment.json it never wrote.
local function made_by_a_run(name)
  return name == "log" or name == "trials" or name == "experiment.json" or name == "uses"
    or name == "slurm" or files.is_temporary(name)
end

-- nil and a message when the folder holds something other than results of this experiment.
local function check_folder(dir, name)
  local before, why, code = reader.description(dir)
  if before then
    if before.name == name then return true end
    local format = "%s: expected results of '%s', got those of '%s'; "
      .. "choose another folder with --out"
    return nil, format:format(dir, name, before.name)
  end
  -- An experiment.json that is not whole comes from a run that was killed: it is written again.
  if not code then return nil, why end
  for _, file in ipairs(files.list(dir)) do
    if not made_by_a_run(file) then
      local format = "%s: expected an empty folder or one with results of '%s', "
        .. "got one with other files (%s)"
      return nil, format:format(dir, name, file)
    end
  end
  return true
end

--- Makes a folder of results, or checks that it holds results of this experiment.
---@param dir string
---@param name string of the experiment
---@return true? ok nil when dir is a file, cannot be written or holds something else
---@return string? message
function store.make(dir, name)
  local ok, why = files.make_folder(dir)
  if not ok then return nil, why end
  ok, why = check_folder(dir, name)
  if not ok then return nil, why end
  return reader.check_inside(dir)
end

--- Keeps the script of the last run as dir/script.lua, for the report.
---@param dir string
---@param path string of the script
---@return true? ok
---@return string? message
function store.keep_script(dir, path)
  local source, why = files.read(path, schema.limits.script)
  if not source then return nil, why end
  return files.write(dir .. "/script.lua", source)
end

--- Opens a folder for a run of an experiment: clears what killed runs left and writes its
--- experiment.json. The caller holds the folder's lock.
---@param dir string
---@param description attune.Description
---@return true? ok
---@return string? message
function store.open(dir, description)
  local ok, why = store.make(dir, description.name)
  if not ok then return nil, why end
  for _, name in ipairs {"", "/trials", "/plots"} do files.clear_temporaries(dir .. name) end
  ok, why = files.write(dir .. "/experiment.json", json.encode(description) .. "\n")
  if not ok then return nil, why end
  return files.make_folder_inside(dir .. "/trials")
end

local Writer = {}
Writer.__index = Writer

--- The begin of the name of the next file of trials: files are read in the order of their names,
--- which is that of the runs, whatever the clock says. The caller holds the folder's lock.
---@param dir string
---@return string base such as run00001-20261127T120000Z
---@return integer number such as 1
function store.next_base(dir)
  local number = 0
  for _, folder in ipairs {"/trials", "/slurm"} do
    for _, name in ipairs(files.list(dir .. folder)) do
      number = math.max(number, math.tointeger(tonumber(name:match "^run(%d+)")) or 0)
    end
  end
  number = number + 1
  return ("run%05d-%s"):format(number, os.date "!%Y%m%dT%H%M%SZ"), number
end

local sync_seconds = 1

--- A writer of records with a file of its own. The file is created with the first record, so that
--- a run that measures nothing leaves none. The caller holds the folder's lock.
---@param dir string
---@param provenance attune.Provenance
---@param base? string begin of the file's name; without it, that of the next run
function store.writer(dir, provenance, base)
  return setmetatable({
    base = ("%s/trials/%s"):format(dir, base or store.next_base(dir)),
    provenance = provenance,
    synced = uv.hrtime(),
  }, Writer)
end

-- Creates the writer's file under a name that does not exist yet, not even as a link.
local function create(base)
  for i = 1, 100 do
    local path = base .. (i > 1 and "-" .. i or "") .. ".jsonl"
    local fd, why, code = uv.fs_open(path, "ax", files.file_mode)
    if fd then return fd, path end
    if code ~= "EEXIST" then return nil, why end
  end
  return nil, base .. ".jsonl: the file exists"
end

-- The file is still where it was created: its folder was neither deleted nor moved. Writing to a
-- deleted file succeeds, and nobody would find the record.
local function still_there(self)
  local open, named = uv.fs_fstat(self.fd), uv.fs_lstat(self.path)
  return open and named and open.ino == named.ino and open.dev == named.dev
end

-- Writes one line with one call: under O_APPEND the lines of several writers never mix, and a line
-- is in the file once the call has returned, whatever becomes of this process. A full disk shows in
-- the number of bytes written, or when the data is flushed: once in sync_seconds, as that can take
-- longer than a trial, and at the end.
function Writer:line(value)
  local line = json.encode(value) .. "\n"
  local n, why = uv.fs_write(self.fd, line, -1)
  if not n then return nil, why end
  if n < #line then return nil, "ENOSPC: no space left on device: " .. self.path end
  if (uv.hrtime() - self.synced) * 1e-9 >= sync_seconds then
    local ok, sync_why = uv.fs_fdatasync(self.fd)
    if not ok then return nil, sync_why end
    self.synced = uv.hrtime()
  end
  if not still_there(self) then
    return nil, self.path .. ": expected the file to stay, but it was deleted or moved"
  end
  return true
end

---@param record attune.Record
---@return true? ok
---@return string? message
function Writer:write(record)
  if not self.fd then
    local fd, path = create(self.base)
    if not fd then return nil, path end
    self.fd, self.path = fd, path
    local ok, why = self:line {schema = schema.version, header = self.provenance}
    if not ok then return nil, why end
  end
  return self:line(record)
end

---@return true? ok nil when the last records may not be on the disk
---@return string? message
function Writer:close()
  if not self.fd then return true end
  local ok, why = uv.fs_fdatasync(self.fd)
  uv.fs_close(self.fd)
  self.fd = nil
  if not ok then return nil, why end
  return true
end

-- A verdict whose detail fits the schema.
local function shortened(claim)
  local detail = claim.detail and text.cut(claim.detail, schema.limits.message)
  return {
    text = claim.text, verdict = claim.verdict, detail = detail, source = claim.source,
    paper = claim.paper, ours = claim.ours,
  }
end

local function content_of(claims)
  local list = json.list()
  for i, claim in ipairs(claims) do list[i] = shortened(claim) end
  return json.encode(list) .. "\n"
end

--- Whether a folder's claims.json holds these verdicts.
---@param dir string
---@param claims attune.ClaimVerdict[]
---@return boolean
function store.has_claims(dir, claims)
  local path = dir .. "/claims.json"
  return files.kind_inside(path) == "file"
    and files.read_inside(path, schema.limits.description) == content_of(claims)
end

--- Writes the verdicts of a run.
---@param dir string
---@param claims attune.ClaimVerdict[]
---@return true? ok
---@return string? message
function store.write_claims(dir, claims)
  local path = dir .. "/claims.json"
  local ok, why = files.write(path, content_of(claims))
  if not ok then return nil, ("%s: %s"):format(path, why) end
  return true
end

-- ---- reading ----------------------------------------------------------------------------------

--- The files of a folder of results as they are.
---@class attune.Loaded
---@field dir string
---@field description attune.Description
---@field records attune.Record[] all of them
---@field headers attune.Provenance[]
---@field warnings string[]

--- Reads the files of a folder of results.
---@param dir string
---@return attune.Loaded? loaded
---@return string? message
function store.load(dir)
  local description, why = reader.open(dir)
  if not description then return nil, why end
  local loaded = {dir = dir, description = description}
  loaded.records, loaded.headers, loaded.warnings = reader.records(dir)
  return loaded
end

--- The table of results from the files that were read.
---@param loaded attune.Loaded
---@param of? table<string, boolean> {[hash] = true}: these points only
---@return attune.Results
function store.results(loaded, of)
  local dir, description, wanted = loaded.dir, loaded.description, {}
  local warnings = table.move(loaded.warnings, 1, #loaded.warnings, 1, {})
  local current = reader.current(loaded.records, description.source)
  for _, record in ipairs(points.in_sweep_order(current, description)) do
    if not of or of[record.hash] then wanted[#wanted + 1] = record end
  end
  for _, warning in ipairs(reader.warnings(wanted)) do warnings[#warnings + 1] = warning end
  warnings[#warnings + 1] = reader.other_source(wanted, description.source)
  local claims, claims_why = reader.claims(dir)
  warnings[#warnings + 1] = claims_why
  local list = points.collect(wanted, description.seeds)
  local results = {
    dir = dir,
    varied = points.varied(description.parameters, list),
    metrics = points.metrics(description, list),
    plots = description.plots or {},
    claims = claims,
    provenance = loaded.headers,
    warnings = warnings,
    points = list,
  }
  for _, name in ipairs {
    "name", "about", "quick", "script", "command", "rounds", "seeds", "parameters", "method",
  } do
    results[name] = description[name]
  end
  return schema.results(results)
end

--- Everything that a folder of results contains.
---@param dir string
---@param of? table<string, boolean> {[hash] = true}: these points only
---@return attune.Results? results
---@return string? message
function store.read(dir, of)
  local loaded, why = store.load(dir)
  if not loaded then return nil, why end
  return store.results(loaded, of)
end

return store
