--- The command line: `attune COMMAND ..`.
--
-- Each command is a file in this folder that returns
--     {summary = string, options = function(parser)?, run = function(args) -> exit status}
-- where args is what argparse made of the command's arguments.
local suggest = require "attune.util.suggest"

local order = {"run", "list", "show", "plot", "report", "export", "info", "env", "repl"}
local planned = {compare = true, model = true}

local function say(...) io.stderr:write("attune: ", ..., "\n") end

local function new_parser(name, command)
  local parser = require "argparse"("attune " .. name, command.summary):add_help "-h --help"
  -- Misuse ends with status 2; argparse's own default would be 255.
  parser.error = function(self, message)
    io.stderr:write(("attune %s: %s\n%s\n"):format(name, message, self:get_usage()))
    os.exit(2, true)
  end
  if command.options then command.options(parser) end
  return parser
end

local function print_help()
  print [[
Usage: attune COMMAND [ARGUMENTS]

attune is an attention laboratory. It runs experiments over attention engines, caches and
positional encodings, tests their claims and draws their plots.

Commands:]]
  for _, name in ipairs(order) do
    print(("  %-8s %s"):format(name, require("attune.cli." .. name).summary))
  end
  print [[

"attune COMMAND --help" describes a command. "attune --version" prints the version.]]
end

local function print_version() print("attune " .. require "attune.version") end

-- Ctrl-C keeps its short message; any other error comes with a traceback.
local function traceback(m)
  if type(m) == "string" and m:find "^interrupted!" then return m end
  return debug.traceback(tostring(m), 2)
end

local function run_command(name, arguments)
  local command = require("attune.cli." .. name)
  local args = new_parser(name, command):parse(arguments)
  local ok, status = xpcall(command.run, traceback, args)
  if ok then return status end
  say(status)
  return status:find "interrupted!" and 130 or 1
end

---@param arguments string[] those of the process
---@return integer exit status
return function(arguments)
  local name = arguments[1]
  if name == nil or name == "--help" or name == "-h" or name == "help" then
    print_help()
    return name == nil and 2 or 0
  end
  if name == "--version" then
    print_version()
    return 0
  end
  if name == "trial" then return require "attune.experiment.worker".main() end
  if planned[name] then
    say(("'%s' is not built yet"):format(name))
    return 2
  end
  local known
  for _, candidate in ipairs(order) do known = known or candidate == name end
  if not known then
    say(("unknown command '%s': %s"):format(name, suggest(name, order)))
    return 2
  end
  if arguments[2] == "--version" then
    print_version()
    return 0
  end
  return run_command(name, table.move(arguments, 2, #arguments, 1, {}))
end
