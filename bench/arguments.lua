--- The command lines of bench/run.lua and bench/check.lua.
local arguments = {}

local function rounds(s)
  local n = math.tointeger(tonumber(s))
  if n and n >= 1 then return n end
  return nil, ("--rounds: expected an integer of at least 1, got '%s'"):format(s)
end

--- Reads the process's arguments; misuse ends it with a message and status 2.
---@param name string the script
---@param about string what it does
---@param add fun(parser) adds the script's own arguments
---@return table arguments with rounds (9) and patterns
function arguments.read(name, about, add)
  local parser = require "argparse"(name, about):add_help "-h --help"
  parser.error = function(self, message)
    io.stderr:write(("%s: %s\n%s\n"):format(name, message, self:get_usage()))
    os.exit(2)
  end
  add(parser)
  parser:option("--rounds", "how often each case is measured")
    :argname "N"
    :convert(rounds)
    :default "9"
  parser:argument("patterns", "measure only what has one of these texts in its name"):args "*"
  return parser:parse()
end

return arguments
