--- The command line: `attune COMMAND ..`. Each command is a file in attune/cli that gives {summary, options(parser), run(args) -> exit status}.
local suggest = require "attune.suggest"

local order = {"run", "list", "show", "plot", "report", "export", "info", "env", "repl"}
local later = {compare = true, model = true}

local function say(...) io.stderr:write("attune: ", ..., "\n") end

local function new_parser(name, command)
  local parser = require "argparse"("attune " .. name, command.summary):add_help("-h --help")
  -- argparse ends misuse with 255.
  parser.error = function(self, message)
    io.stderr:write(("attune %s: %s\n%s\n"):format(name, message, self:get_usage()))
    os.exit(2, true)
  end
  if command.options then command.options(parser) end
  return parser
end

local function help()
  print "Usage: attune COMMAND [ARGUMENTS]\n\nAn attention laboratory: runs experiments over attention engines, caches and positional encodings.\n\nCommands:"
  for _, name in ipairs(order) do print(("  %-8s %s"):format(name, require("attune.cli." .. name).summary)) end
  print "\n  attune COMMAND --help tells more; attune --version prints the version."
end

---@param arguments string[] the process's
---@return integer exit status
return function(arguments)
  local name = arguments[1]
  if name == nil or name == "--help" or name == "-h" or name == "help" then
    help()
    return name == nil and 2 or 0
  end
  if name == "--version" then
    print("attune " .. require "attune.version")
    return 0
  end
  if name == "trial" then return require "attune.worker".main() end
  if later[name] then
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
    print("attune " .. require "attune.version")
    return 0
  end
  local command = require("attune.cli." .. name)
  local args = new_parser(name, command):parse(table.move(arguments, 2, #arguments, 1, {}))
  local ok, status = xpcall(command.run, function(m) return type(m) == "string" and m:find "^interrupted!" and m or debug.traceback(tostring(m), 2) end, args)
  if ok then return status end
  say(status)
  return status:find "interrupted!" and 130 or 1
end
