--- The folders of attune's own files, in the source tree and once installed.
local place = {}

--- The folder that holds attune/init.lua, for LUA_PATH: lua in the source tree,
--- PREFIX/share/lua/5.4 once installed.
place.lua = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*/[^/]*$"

local function parent(folder) return folder:match "^(.+)/[^/]+$" or folder .. "/.." end

local function exists(path)
  local f = io.open(path)
  if f then f:close() end
  return f ~= nil
end

-- What holds "plots" and "experiments": the source tree, PREFIX/share/attune, or a rock's modules.
local roots = {
  parent(place.lua), parent(parent(place.lua)) .. "/attune", place.lua .. "/attune",
}

--- The folder "plots" or "experiments"; nil when it does not exist.
---@param name string
---@return string?
function place.folder(name)
  for _, root in ipairs(roots) do
    local path = ("%s/%s"):format(root, name)
    if exists(path .. "/.") then return path end
  end
end

return place
