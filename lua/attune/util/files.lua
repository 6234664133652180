--- Files and folders: what the io library lacks, over luv. A failure gives nil and a message.
local uv = require "luv"
local files = {}

local folder_mode = 493 -- 0755
files.file_mode = 420 -- 0644

--- What a path is.
---@return string? kind "file", "directory" ..; nil when nothing is there
function files.kind(path)
  local info = uv.fs_stat(path)
  return info and info.type
end

--- Makes a folder and the folders above it; one that exists is fine.
---@return true? ok
---@return string? message
function files.make_folder(path)
  local kind = files.kind(path)
  if kind == "directory" then return true end
  if kind then return nil, path .. ": expected a folder, got a file" end
  local parent = path:match "^(.+)/[^/]+/?$"
  if parent and not files.kind(parent) then
    local ok, why = files.make_folder(parent)
    if not ok then return nil, why end
  end
  local ok, why = uv.fs_mkdir(path, folder_mode)
  if not ok and files.kind(path) ~= "directory" then return nil, why end
  return true
end

--- The names in a folder, sorted; an empty list when it cannot be read.
---@return string[]
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

--- The content of a file.
---@return string? text
---@return string? message
function files.read(path)
  local f, why = io.open(path, "rb")
  if not f then return nil, why end
  local text, read_why = f:read "a"
  f:close()
  return text, read_why
end

--- Writes the whole text to an open file descriptor.
---@param fd integer
---@param text string
---@return true? ok
---@return string? message
function files.put(fd, text)
  local done = 0
  while done < #text do
    local n, why = uv.fs_write(fd, text:sub(done + 1), -1)
    if not n then return nil, why end
    done = done + n
  end
  return true
end

--- Writes a whole file or leaves the old one: to a temporary name, flushed to disk, then renamed.
---@param path string
---@param text string
---@return true? ok
---@return string? message
function files.write(path, text)
  local temporary = ("%s.%d.tmp"):format(path, uv.os_getpid())
  local fd, why = uv.fs_open(temporary, "w", files.file_mode)
  if not fd then return nil, why end
  local ok
  ok, why = files.put(fd, text)
  if ok then ok, why = uv.fs_fsync(fd) end
  uv.fs_close(fd)
  if ok then ok, why = uv.fs_rename(temporary, path) end
  if not ok then
    uv.fs_unlink(temporary)
    return nil, why
  end
  return true
end

--- A word as a POSIX shell reads it back unchanged.
---@param word string
---@return string
function files.shell_quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

--- The first line that a command prints on standard output.
---@param words string[] program and arguments, passed without a shell's expansions
---@return string? line nil when it prints nothing
function files.capture(words)
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = files.shell_quote(word) end
  local pipe = io.popen(table.concat(quoted, " ") .. " 2>/dev/null")
  if not pipe then return nil end
  local line = pipe:read "l"
  pipe:close()
  return line
end

return files
