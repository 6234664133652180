--- The command line: `attune COMMAND ..`.
--
-- Each command is a file in this folder that returns
--     {summary = string, options = function(parser)?, run = function(args) -> exit status,
--      takes_options = {[name] = true}?}
-- where args is what argparse made of the command's arguments. The value of an option that
-- takes_options names may begin with -.
local core = require "attune.core"
-- Before luv is loaded, which opens files of its own.
core._keep_standard_files()

local commands = require "attune.cli.commands"
local output = require "attune.cli.output"
local suggest = require "attune.util.suggest"
local text = require "attune.util.text"

local order = commands.order

local function say(message) output.complain("attune", message) end

-- The exit status when everything is printed: not 0 when standard output could not be written.
local function final_status(status)
  local ok, why = output.flush()
  if ok then return status end
  say("standard output: " .. why)
  return status == 0 and 1 or status
end

-- A module that lies in the folder in which attune is started may come from a stranger, so attune
-- does not look there. A script may: experiment/init.lua adds the folders for it.
local function leave_out_current_folder()
  local function without(path)
    return (";" .. path .. ";"):gsub(";%./%?%.lua;", ";"):gsub(";%./%?/init%.lua;", ";")
      :gsub(";%./%?%.so;", ";"):match "^;(.-);?$"
  end
  package.path, package.cpath = without(package.path), without(package.cpath)
end

-- Programs that this process starts get no file that it has open but the standard ones.
local function keep_files_from_programs()
  local uv = require "luv"
  for _, place in ipairs {{io, "popen"}, {os, "execute"}, {uv, "spawn"}} do
    local library, name = place[1], place[2]
    local start = library[name]
    library[name] = function(...)
      core._close_on_exec()
      return start(...)
    end
  end
end

local function new_parser(name, command)
  local parser = require "argparse"("attune " .. name, command.summary)
  parser:add_help {"-h --help", action = function()
    output.write(parser:get_help() .. "\n")
    os.exit(final_status(0), true)
  end}
  -- Misuse ends with status 2; argparse's own default would be 255.
  parser.error = function(self, message)
    output.complain("attune " .. name, message)
    io.stderr:write(self:get_usage(), "\n")
    os.exit(2, true)
  end
  if command.options then command.options(parser) end
  return parser
end

local function print_help()
  output.write [[
Usage: attune COMMAND [ARGUMENTS]

attune is an attention laboratory. It runs experiments over attention engines, caches and
positional encodings, tests their claims and draws their plots.

Commands:
]]
  for _, name in ipairs(order) do
    output.line(("  %-10s %s"):format(name, commands.get(name).summary))
  end
  output.write [[

"attune COMMAND --help" describes a command. "attune --version" prints the version.
]]
end

local function print_version() output.line("attune " .. require "attune.version") end

-- Ctrl-C keeps its short message; any other error comes with a traceback.
local function traceback(m)
  if type(m) == "string" and m:find "interrupted!$" then return "interrupted!" end
  return debug.traceback(tostring(m), 2)
end

-- argparse reads a word that begins with - as a value only in the form --name=value.
local function with_values(arguments, takes_options)
  local list, i = {}, 1
  while i <= #arguments do
    local word, value = arguments[i], arguments[i + 1]
    local joined = takes_options[word] and value
    list[#list + 1] = joined and word .. "=" .. value or word
    i = i + (joined and 2 or 1)
  end
  return list
end

local function run_command(name, arguments)
  local command = commands.get(name)
  if command.takes_options then arguments = with_values(arguments, command.takes_options) end
  local args = new_parser(name, command):parse(arguments)
  local ok, status = xpcall(command.run, traceback, args)
  if ok then return status end
  -- A traceback has lines.
  io.stderr:write("attune: ", text.printable(status, "\n\t"), "\n")
  return status:find "interrupted!" and 130 or 1
end

local function dispatch(arguments)
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
  if name == "task" then return require "attune.experiment.task".main(arguments) end
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

---@param arguments string[] those of the process
---@return integer exit status
return function(arguments)
  leave_out_current_folder()
  keep_files_from_programs()
  return final_status(dispatch(arguments))
end
