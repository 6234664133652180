--- Files and folders: what the io library lacks, over luv. A failure gives nil and a message.
--
-- A name that the user gave may be a link. A name that attune makes inside a folder of results may
-- not: the folder may come from a stranger, whose link would lead anywhere. The functions whose
-- names end with `inside` are for those names, and `write` replaces a link.
local process = require "attune.util.process"
local uv = require "luv"
local files = {}

local folder_mode = 493 -- 0755
files.file_mode = 420 -- 0644

local flags = uv.constants
-- Opening a FIFO must not wait for its writer.
local reading = flags.O_RDONLY | flags.O_NONBLOCK
local max_file_bytes = 1 << 30

--- What a path is, links followed.
---@return string? kind "file", "directory" ..; nil when nothing is there
function files.kind(path)
  local info = uv.fs_stat(path)
  return info and info.type
end

--- What a path is itself: "link" for a symbolic link.
---@return string? kind nil when nothing is there
function files.kind_inside(path)
  local info = uv.fs_lstat(path)
  return info and info.type
end

--- The folder that holds a path.
---@return string
function files.folder_of(path)
  local folder = path:match "^(.*)/[^/]*$"
  if not folder then return "." end
  return folder == "" and "/" or folder
end

local kind_names = {
  directory = "a folder", file = "a file", link = "a symbolic link", fifo = "a FIFO (named pipe)",
  char = "a device", block = "a device", socket = "a socket",
}

-- nil and a message that says what is there instead.
local function unexpected(path, wanted, kind)
  return nil, ("%s: expected %s, got %s"):format(path, wanted, kind_names[kind] or "nothing")
end

-- ---- folders ----------------------------------------------------------------------------------

--- Makes a folder and the folders above it; one that exists is fine.
---@return true? ok
---@return string? message
function files.make_folder(path)
  local kind = files.kind(path)
  if kind == "directory" then return true end
  if kind then return unexpected(path, "a folder", kind) end
  local parent = path:match "^(.+)/[^/]+/?$"
  if parent and not files.kind(parent) then
    local ok, why = files.make_folder(parent)
    if not ok then return nil, why end
  end
  local ok, why = uv.fs_mkdir(path, folder_mode)
  if not ok and files.kind(path) ~= "directory" then return nil, why end
  return true
end

--- Makes a folder inside a folder of results; one that exists is fine, a link to one is not.
---@return true? ok
---@return string? message
function files.make_folder_inside(path)
  local kind = files.kind_inside(path)
  if kind == "directory" then return true end
  if kind then return unexpected(path, "a folder", kind) end
  local ok, why = uv.fs_mkdir(path, folder_mode)
  if ok or files.kind_inside(path) == "directory" then return true end -- another process was faster
  return nil, why
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

-- ---- reading ----------------------------------------------------------------------------------

local function read_all(fd, path, max_bytes)
  local info, why = uv.fs_fstat(fd)
  if not info then return nil, why end
  if info.type ~= "file" then return unexpected(path, "a file", info.type) end
  local chunks, total = {}, 0
  repeat
    -- Files in /proc say that they are empty, so that the end is found by reading.
    local chunk
    chunk, why = uv.fs_read(fd, 1 << 20, -1)
    if not chunk then return nil, why end
    chunks[#chunks + 1] = chunk
    total = total + #chunk
    if total > max_bytes then
      local format = "%s: expected a file of at most %d bytes, got a larger one"
      return nil, format:format(path, max_bytes)
    end
  until chunk == ""
  return table.concat(chunks)
end

--- The content of a file that the user named. A folder, a device or a FIFO is an error.
---@param path string
---@param max_bytes? integer
---@return string? text
---@return string? message
function files.read(path, max_bytes)
  local fd, why = uv.fs_open(path, reading, 0)
  if not fd then return nil, why end
  local text
  text, why = read_all(fd, path, max_bytes or max_file_bytes)
  uv.fs_close(fd)
  return text, why
end

--- The content of a file inside a folder of results. A link is an error, too.
---@param path string
---@param max_bytes? integer
---@return string? text
---@return string? message
function files.read_inside(path, max_bytes)
  local info, why = uv.fs_lstat(path)
  if not info then return nil, why end
  if info.type ~= "file" then return unexpected(path, "a file", info.type) end
  return files.read(path, max_bytes)
end

-- ---- writing ----------------------------------------------------------------------------------

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

local temporary_pattern = "^%.attune%-(%d+)%-%x+"

--- A new empty file with an unpredictable name in a folder. Nobody else has it open, and no link
--- leads elsewhere.
---@param folder string
---@param suffix? string such as ".svg"
---@return integer? fd open for writing
---@return string path the message when fd is nil
function files.temporary(folder, suffix)
  local random = uv.random(12):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  local name = ("%s/.attune-%d-%s%s"):format(folder, uv.os_getpid(), random, suffix or "")
  -- x: exclusive; the name must not exist, not even as a link.
  local fd, why = uv.fs_open(name, "wx", files.file_mode)
  return fd, fd and name or why
end

--- Deletes the temporary files in a folder whose process has ended.
---@param folder string
function files.clear_temporaries(folder)
  for _, name in ipairs(files.list(folder)) do
    local pid = math.tointeger(tonumber(name:match(temporary_pattern)))
    if pid and pid ~= uv.os_getpid() and not uv.kill(pid, 0) then
      uv.fs_unlink(folder .. "/" .. name)
    end
  end
end

--- Whether `temporary` makes such names.
---@param name string
---@return boolean
function files.is_temporary(name) return name:find(temporary_pattern) ~= nil end

-- Writes a temporary file beside path, flushes it to disk and renames it to path.
local function replace(path, text, mode)
  local folder = files.folder_of(path)
  if files.kind(folder) ~= "directory" then
    return nil, ("%s: expected a folder that exists, got %s"):format(path, folder)
  end
  local fd, temporary = files.temporary(folder)
  if not fd then return nil, temporary end
  local ok, why = files.put(fd, text)
  if ok and mode then ok, why = uv.fs_fchmod(fd, mode) end
  if ok then ok, why = uv.fs_fsync(fd) end
  uv.fs_close(fd)
  if ok then ok, why = uv.fs_rename(temporary, path) end
  if ok then return true end
  uv.fs_unlink(temporary)
  return nil, why
end

local permissions = 511 -- 0777

--- Writes a whole file or leaves the old one. The mode of the old one stays. A link is replaced and
--- not followed; what is neither a file nor a link is an error.
---@param path string
---@param text string
---@return true? ok
---@return string? message
function files.write(path, text)
  local info = uv.fs_lstat(path)
  if info and info.type ~= "file" and info.type ~= "link" then
    return unexpected(path, "a file", info.type)
  end
  return replace(path, text, info and info.type == "file" and info.mode & permissions or nil)
end

-- Where a chain of links ends, which need not exist.
local function link_target(path)
  for _ = 1, 40 do
    if files.kind_inside(path) ~= "link" then return path end
    local target, why = uv.fs_readlink(path)
    if not target then return nil, why end
    path = target:sub(1, 1) == "/" and target or files.folder_of(path) .. "/" .. target
  end
  return nil, path .. ": too many levels of symbolic links"
end

--- Like write, for a path that the user named: a link's target is written.
---@param path string
---@param text string
---@return true? ok
---@return string? message
function files.save(path, text)
  if path == "" then return nil, "expected the name of a file, got an empty one" end
  local info = uv.fs_stat(path)
  if info and info.type ~= "file" then return unexpected(path, "a file", info.type) end
  local target, why
  if info then target, why = uv.fs_realpath(path) else target, why = link_target(path) end
  if not target then return nil, why end
  return replace(target, text, info and info.mode & permissions or nil)
end

-- ---- programs ---------------------------------------------------------------------------------

local capture_seconds = 10

--- The first line that a program prints on standard output. No shell reads the words.
---@param words string[] program and arguments
---@return string? line nil when it prints nothing or cannot be started
function files.capture(words)
  local ended = process.run(words, 1, capture_seconds)
  local line = ended and ended.said:match "^[^\n]*"
  return line ~= "" and line or nil
end

return files
