--- Where attune's own files lie: beside this one in the source tree, under share/attune once installed.
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local place = {}

local function exists(path)
  local f = io.open(path)
  if f then f:close() end
  return f ~= nil
end

-- lua/attune/place.lua in the tree; PREFIX/share/lua/5.4/attune/place.lua installed.
local roots = {here .. "/../..", here .. "/../../../attune"}

--- The folder "plots" or "experiments"; nil when it is not there.
function place.folder(name)
  for _, root in ipairs(roots) do
    if exists(("%s/%s/."):format(root, name)) or exists(("%s/%s"):format(root, name)) then return ("%s/%s"):format(root, name) end
  end
end

--- The folder that holds attune/init.lua, for LUA_PATH.
place.lua = here:match "^(.*)/[^/]*$"

return place
