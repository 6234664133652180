--- Removes from a folder of results what does not count: `attune gc`.
--
-- What stays is copied byte by byte. Each file is written whole beside the old one and renamed, so
-- that a run that is killed, or a full disk, loses nothing.
local files = require "attune.util.files"
local lines = require "attune.results.lines"
local reader = require "attune.results.reader"
local schema = require "attune.results.schema"
local store = require "attune.results.store"
local uv = require "luv"

local limits = schema.limits

-- The records that count, as a set.
local function wanted_lines(loaded)
  local current = reader.current(loaded.records, loaded.description.source)
  local chosen = reader.chosen(current, loaded.description.seeds)
  local wanted = {}
  for _, record in pairs(chosen) do wanted[record] = true end
  return wanted
end

-- Why a line that is not wanted does not count.
local function kind_of(record, current_hashes)
  if not current_hashes[record.hash] then return "superseded" end
  return "repeated"
end

-- What stays of a file of trials, nil for nothing, and how many lines of each kind go.
local function sift(content, records, wanted, current_hashes, state)
  local kept, removed = {}, {}
  local with_records = false
  lines(content, records, state, function(line, kind, record)
    if kind == "header" or wanted[record] then
      kept[#kept + 1] = line
      with_records = with_records or kind == "record"
    else
      local why = record and kind_of(record, current_hashes) or "broken"
      removed[why] = (removed[why] or 0) + 1
    end
  end)
  return with_records and table.concat(kept, "\n") .. "\n" or nil, removed
end

local function add(sums, removed)
  for kind, count in pairs(removed) do sums[kind] = (sums[kind] or 0) + count end
end

-- Files of earlier runs that --fresh has moved away.
local function remove_old(dir, dry, sums)
  local old = dir .. "/trials/old"
  if files.kind_inside(old) ~= "directory" then return true end
  for _, name in ipairs(files.list(old)) do
    local path = old .. "/" .. name
    local info = uv.fs_lstat(path)
    if name:find "%.jsonl$" and info and info.type == "file" then
      sums.old, sums.bytes = (sums.old or 0) + 1, sums.bytes + info.size
      if not dry then
        local ok, why = uv.fs_unlink(path)
        if not ok then return nil, why end
      end
    end
  end
  if not dry then uv.fs_rmdir(old) end -- stays where something else is in it
  return true
end

-- Files that trials kept whose points do not count.
local function remove_kept(dir, current_hashes, dry, sums)
  local all = dir .. "/files"
  if files.kind_inside(all) ~= "directory" then return true end
  for _, name in ipairs(files.list(all)) do
    local hash, folder = name:match "^(%x+)%-%d+$", all .. "/" .. name
    local is_stale = hash and not current_hashes[hash]
      and files.kind_inside(folder) == "directory"
    for _, file in ipairs(is_stale and files.list(folder) or {}) do
      local info = uv.fs_lstat(folder .. "/" .. file)
      if info and info.type == "file" then
        sums.kept, sums.bytes = (sums.kept or 0) + 1, sums.bytes + info.size
        if not dry then
          local ok, why = uv.fs_unlink(folder .. "/" .. file)
          if not ok then return nil, why end
        end
      end
    end
    if is_stale and not dry then uv.fs_rmdir(folder) end
  end
  return true
end

--- Removes what does not count. The caller holds the folder's lock.
---@param dir string
---@param dry? boolean only count
---@return table<string, integer>? sums bytes; superseded, repeated and broken lines; old files
---@return string? message
return function(dir, dry)
  local loaded, why = store.load(dir)
  if not loaded then return nil, why end
  local sums, wanted, state = {bytes = 0}, wanted_lines(loaded), {at = 0}
  local current_hashes = {}
  for _, record in ipairs((reader.current(loaded.records, loaded.description.source))) do
    current_hashes[record.hash] = true
  end
  for i, name in ipairs(files.list(dir .. "/trials")) do
    local path = dir .. "/trials/" .. name
    local content = i <= limits.files and name:find "%.jsonl$"
      and files.read_inside(path, limits.file)
    if content then
      local kept, removed = sift(content, loaded.records, wanted, current_hashes, state)
      if kept ~= content then
        add(sums, removed)
        sums.bytes = sums.bytes + #content - #(kept or "")
        local ok = true
        if not dry and kept then ok, why = files.write(path, kept) end
        if not dry and not kept then ok, why = uv.fs_unlink(path) end
        if not ok then return nil, why end
      end
    end
  end
  local ok
  ok, why = remove_old(dir, dry, sums)
  if ok then ok, why = remove_kept(dir, current_hashes, dry, sums) end
  if not ok then return nil, why end
  if not dry then
    for _, name in ipairs {"", "/trials", "/plots"} do files.clear_temporaries(dir .. name) end
  end
  return sums
end
