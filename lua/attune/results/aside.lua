--- Moves records of earlier runs to trials/old, so that --fresh loses nothing.
local files = require "attune.util.files"
local limits = require "attune.results.schema".limits
local lines = require "attune.results.lines"
local uv = require "luv"

-- A path in trials/old that no file has yet.
local function free_path(dir, name)
  local base = ("%s/trials/old/%s"):format(dir, name:gsub("%.jsonl$", ""))
  local path, i = base .. ".jsonl", 1
  while files.kind_inside(path) do
    i = i + 1
    path = ("%s-%d.jsonl"):format(base, i)
  end
  return path
end

local function text_of(list) return table.concat(list, "\n") .. "\n" end

-- Copies the records that go to trials/old and writes the file again without them. A run that is
-- killed in between leaves records in both files.
local function divide(dir, name, content, state, records, goes)
  local kept, moved, has_kept, has_moved = {}, {}, false, false
  lines(content, records, state, function(line, kind, record)
    local is_moved = record and goes(record)
    if kind == "header" or is_moved then moved[#moved + 1] = line end
    if not is_moved then kept[#kept + 1] = line end
    has_moved, has_kept = has_moved or is_moved, has_kept or (record and not is_moved)
  end)
  if not has_moved then return true end
  local path = ("%s/trials/%s"):format(dir, name)
  if not has_kept then return uv.fs_rename(path, free_path(dir, name)) end
  local ok, why = files.write(free_path(dir, name), text_of(moved))
  if ok then ok, why = files.write(path, text_of(kept)) end
  return ok, why
end

--- The caller holds the folder's lock.
---@param dir string
---@param records attune.Record[] all of the folder
---@param goes? fun(record: attune.Record): boolean whether a record is moved; without it all are
---@return true? ok
---@return string? message
return function(dir, records, goes)
  local state = {at = 0}
  for i, name in ipairs(files.list(dir .. "/trials")) do
    if name:find "%.jsonl$" then
      local ok, why = files.make_folder_inside(dir .. "/trials/old")
      if not ok then return nil, why end
      if goes then
        local content = i <= limits.files
          and files.read_inside(("%s/trials/%s"):format(dir, name), limits.file)
        if content then ok, why = divide(dir, name, content, state, records, goes) end
      else
        ok, why = uv.fs_rename(("%s/trials/%s"):format(dir, name), free_path(dir, name))
      end
      if not ok then return nil, why end
    end
  end
  return true
end
