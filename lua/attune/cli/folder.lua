--- The folder or file that an argument names: for argparse's convert.
---@param path string
---@return string? path without slashes at its end; one that begins with - is given a ./, so that no
--- program takes it for an option
---@return string? message
return function(path)
  if path == "" then return nil, "expected the name of a folder or file, got an empty one" end
  if path:sub(1, 1) == "-" then path = "./" .. path end
  return (path:gsub("(.)/+$", "%1"))
end
