--- Joins folders of results of one experiment into a new one: `attune merge`. The folders stay as
--- they are. Trials that are in several of them count once, as everywhere.
local compare = require "attune.results.compare"
local files = require "attune.util.files"
local json = require "attune.util.json"
local reader = require "attune.results.reader"
local schema = require "attune.results.schema"
local store = require "attune.results.store"
local uv = require "luv"

-- Adds the entries of a list that are not there yet.
local function add_missing(to, from, name_of)
  local seen = {}
  for _, entry in ipairs(to) do seen[name_of(entry)] = true end
  for _, entry in ipairs(from or {}) do
    if not seen[name_of(entry)] then
      seen[name_of(entry)] = true
      to[#to + 1] = entry
    end
  end
  return to
end

local function itself(x) return x end
local function name_of_metric(m) return m.name end
local function text_of(x) return json.encode(x) end

-- What describes all folders: what the last one says, with the parameters, metrics and plots that
-- only others have.
local function joined_description(all)
  local d = {}
  for k, v in pairs(all[#all].description) do d[k] = v end
  d.schema = schema.version
  for _, field in ipairs {
    {"parameters", itself}, {"metrics", name_of_metric}, {"plots", text_of}, {"claims", itself},
    {"seeds", itself},
  } do
    local name, name_of = field[1], field[2]
    if d[name] then d[name] = json.list(table.move(d[name], 1, #d[name], 1, {})) end
    for _, loaded in ipairs(all) do
      local list = loaded.description[name]
      if list then d[name] = add_missing(d[name] or json.list(), list, name_of) end
    end
  end
  local seen, points = {}, 0
  for _, loaded in ipairs(all) do
    d.rounds = math.max(d.rounds or 1, loaded.description.rounds or 1)
    for _, record in ipairs(loaded.records) do
      local key = reader.parameters_key(record.parameters)
      if not seen[key] then seen[key], points = true, points + 1 end
    end
  end
  d.points = d.points and math.max(d.points, points)
  return d
end

local function check_out(out)
  local kind = files.kind(out)
  if not kind then return true end
  if kind ~= "directory" then
    return nil, ("%s: expected a folder that does not exist yet, got a %s"):format(out, kind)
  end
  if #files.list(out) == 0 then return true end
  return nil, out .. ": expected a folder that does not exist yet or is empty, got one with files"
end

-- Copies the files of trials, byte by byte, numbered in the order of the folders.
local function copy_trials(all, out)
  local number = 0
  for _, loaded in ipairs(all) do
    for _, name in ipairs(files.list(loaded.dir .. "/trials")) do
      if name:find "%.jsonl$" and number < schema.limits.files then
        local path = loaded.dir .. "/trials/" .. name
        local content, why = files.read_inside(path, schema.limits.file)
        if not content then return nil, why end
        number = number + 1
        local rest = name:gsub("^run%d+%-", "")
        local ok
        ok, why = files.write(("%s/trials/run%05d-%s"):format(out, number, rest), content)
        if not ok then return nil, why end
      end
    end
  end
  return true
end

-- Copies the files that trials kept. Trials that are in several folders have one: the first.
local function copy_kept(all, out)
  for _, loaded in ipairs(all) do
    local from = loaded.dir .. "/files"
    local folders = files.kind_inside(from) == "directory" and files.list(from) or {}
    for _, folder in ipairs(folders) do
      local to = ("%s/files/%s"):format(out, folder)
      local is_new = folder:find "^%x+%-%d+$" and not files.kind(to)
        and files.kind_inside(from .. "/" .. folder) == "directory"
      for _, name in ipairs(is_new and files.list(from .. "/" .. folder) or {}) do
        local path = ("%s/%s/%s"):format(from, folder, name)
        if files.kind_inside(path) == "file" then
          local ok, why = files.make_folder(to)
          if ok then ok, why = uv.fs_copyfile(path, to .. "/" .. name) end
          if not ok then return nil, why end
        end
      end
    end
  end
  return true
end

local function complete_keys(loaded)
  local keys, count = {}, 0
  local chosen = reader.chosen(loaded.records, loaded.description.seeds)
  for key, record in pairs(chosen) do
    if record.status == "ok" or record.status == "skipped" then
      keys[key], count = true, count + 1
    end
  end
  return keys, count
end

--- Joins folders.
---@param dirs string[] at least two
---@param out string a folder that does not exist, or is empty
---@return {counts: integer[], both: integer, total: integer, sources: integer}? joined trials with
--- a result per folder, those that are in several, all of them, and the number of scripts
---@return string? message
return function(dirs, out)
  local all = {}
  for i, dir in ipairs(dirs) do
    local loaded, why = store.load(dir)
    if not loaded then return nil, why end
    local name = all[1] and all[1].description.name
    if name and loaded.description.name ~= name then
      return nil, ("%s: expected results of '%s', as in %s, got those of '%s'"):format(dir, name,
        dirs[1], loaded.description.name)
    end
    for k = 1, i - 1 do
      why = compare.unlike(all[k].description.metrics or {}, dirs[k],
        loaded.description.metrics or {}, dir)
      if why then return nil, why end
    end
    all[i] = loaded
  end
  local ok, why = check_out(out)
  if ok then ok, why = files.make_folder(out .. "/trials") end
  if ok then ok, why = copy_trials(all, out) end
  if ok then ok, why = copy_kept(all, out) end
  -- The description comes last: a folder that is not whole is none of results.
  if ok then
    ok, why = files.write(out .. "/experiment.json", json.encode(joined_description(all)) .. "\n")
  end
  if not ok then return nil, why end
  local joined, seen, sources = {counts = {}, both = 0, total = 0, sources = 0}, {}, {}
  for i, loaded in ipairs(all) do
    local keys
    keys, joined.counts[i] = complete_keys(loaded)
    for key in pairs(keys) do
      joined.both = joined.both + (seen[key] == 1 and 1 or 0)
      joined.total = joined.total + (seen[key] and 0 or 1)
      seen[key] = (seen[key] or 0) + 1
    end
    local source = loaded.description.source or ""
    if not sources[source] then
      sources[source], joined.sources = true, joined.sources + 1
    end
  end
  return joined
end
