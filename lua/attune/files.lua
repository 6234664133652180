--- Files, folders and paths: what io lacks, over luv. Failures are nil and a message.
local uv = require "luv"
local files = {}

function files.kind(path)
  local info = uv.fs_stat(path)
  return info and info.type
end

--- Makes a folder and those above it.
function files.make_folder(path)
  local kind = files.kind(path)
  if kind == "directory" then return true end
  if kind then return nil, path .. ": expected a folder, got a file" end
  local parent = path:match "^(.+)/[^/]+/?$"
  if parent and not files.kind(parent) then
    local ok, why = files.make_folder(parent)
    if not ok then return nil, why end
  end
  local ok, why = uv.fs_mkdir(path, 493) -- 0755
  if not ok and files.kind(path) ~= "directory" then return nil, why end
  return true
end

--- The names in a folder, sorted; none when it cannot be read.
function files.list(path)
  local names, handle = {}, uv.fs_scandir(path)
  while handle do
    local name = uv.fs_scandir_next(handle)
    if not name then break end
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

function files.read(path)
  local f, why = io.open(path, "rb")
  if not f then return nil, why end
  local text, read_why = f:read "a"
  f:close()
  return text, read_why
end

--- The whole text or nothing: to a temporary name, flushed to disk, then renamed.
function files.write(path, text)
  local temporary = ("%s.%d.tmp"):format(path, uv.os_getpid())
  local fd, why = uv.fs_open(temporary, "w", 420) -- 0644
  if not fd then return nil, why end
  local done = 0
  while done < #text do
    local n, failed = uv.fs_write(fd, text:sub(done + 1), -1)
    if not n then
      uv.fs_close(fd)
      uv.fs_unlink(temporary)
      return nil, failed
    end
    done = done + n
  end
  local synced, sync_why = uv.fs_fsync(fd)
  uv.fs_close(fd)
  if not synced then
    uv.fs_unlink(temporary)
    return nil, sync_why
  end
  local renamed, rename_why = uv.fs_rename(temporary, path)
  if not renamed then
    uv.fs_unlink(temporary)
    return nil, rename_why
  end
  return true
end

--- The output of a command's first line, or nil. words: program and arguments, passed as they are, without a shell's reading.
function files.capture(words)
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = "'" .. word:gsub("'", "'\\''") .. "'" end
  local pipe = io.popen(table.concat(quoted, " ") .. " 2>/dev/null")
  if not pipe then return nil end
  local line = pipe:read "l"
  pipe:close()
  return line
end

return files
