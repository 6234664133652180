--- Texts from files and folders, divided into documents.
local core = require "attune.core"
local files = require "attune.util.files"

local text = {}

local max_depth = 16

-- The files below a folder, sorted, without hidden ones; nil and a message.
local function walk(folder, found, depth)
  if depth > max_depth then
    return nil, ("%s: expected at most %d folders inside each other"):format(folder, max_depth)
  end
  for _, name in ipairs(files.list(folder)) do
    local path = folder .. "/" .. name
    local kind = name:sub(1, 1) ~= "." and files.kind(path)
    if kind == "directory" then
      local ok, why = walk(path, found, depth + 1)
      if not ok then return nil, why end
    elseif kind == "file" then
      found[#found + 1] = path
    end
  end
  return found
end

-- The offsets, from 0, of the documents of one text, appended to the list.
local function divide(content, separator, offset, starts)
  local first = 1
  repeat
    starts[#starts + 1] = offset + first - 1
    local _, last = content:find(separator, first, true)
    while last and content:sub(last + 1, last + #separator) == separator do
      last = last + #separator
    end
    first = (last or #content) + 1
  until first > #content
end

local function code_of(why) return why:match "^(E%u+)" or "EIO" end

--- The text of a file, or of all files of a folder in the order of their names, and the offset of
--- each document from 0. Each file is at least one document; a separator divides it further and
--- stays with the document before it.
---@param path string
---@param separator? string
---@param any_bytes? boolean accept what is not UTF-8
---@return string? content
---@return integer[]|string starts the message where content is nil
---@return string? code
function text.read(path, separator, any_bytes)
  local paths = {path}
  if files.kind(path) == "directory" then
    local why
    paths, why = walk((path:gsub("(.)/+$", "%1")), {}, 1)
    if not paths then return nil, why, "EIO" end
  end
  local contents, starts, offset = {}, {}, 0
  for _, name in ipairs(paths) do
    local content, why = files.read(name)
    if not content then
      if not why:find(name, 1, true) then why = name .. ": " .. why end
      return nil, why, code_of(why)
    end
    local prefix = core._utf8_prefix(content)
    if prefix < #content and not any_bytes then
      local form = "%s: expected UTF-8, got byte 0x%02x at offset %d; pass {any_bytes = true} to "
        .. "read it as it is"
      return nil, form:format(name, content:byte(prefix + 1), prefix), "EFORMAT"
    end
    if content ~= "" then
      if separator then
        divide(content, separator, offset, starts)
      else
        starts[#starts + 1] = offset
      end
    end
    contents[#contents + 1] = content
    offset = offset + #content
  end
  if offset == 0 then
    return nil, ("%s: expected a text of at least 1 byte, got an empty corpus"):format(path),
      "EFORMAT"
  end
  return table.concat(contents), starts
end

return text
