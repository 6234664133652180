local files = require "attune.util.files"
local text = require "attune.util.text"
local uv = require "luv"
local words = require "attune.cli.repl_words"

local repl = {summary = "a Lua prompt with attune loaded, with history and completion"}

local kept_lines = 1000 -- of the history

-- The file of the history; nil without a home folder.
local function history_path()
  local state = os.getenv "XDG_STATE_HOME"
  if not state or state:sub(1, 1) ~= "/" then
    local home = os.getenv "HOME"
    if not home or home == "" then return nil end
    state = home .. "/.local/state"
  end
  local folder = state .. "/attune"
  return files.make_folder(folder) and folder .. "/history" or nil
end

-- A prompt with history and completion; nil where the library is missing.
local function with_readline()
  local found, readline = pcall(require, "readline")
  if not found then return nil end
  local path = history_path()
  readline.set_readline_name "attune"
  readline.set_options {
    keeplines = kept_lines, histfile = path or "/dev/null", completion = true, auto_add = true,
  }
  readline.set_complete_function(function(line, _, to)
    return words.complete(line:sub(1, to), _G)
  end)
  local function close()
    if path then readline.save_history() end
  end
  return readline.readline, close
end

local function reader()
  local is_terminal = uv.guess_handle(0) == "tty"
  if is_terminal then
    local read, close = with_readline()
    if read then return read, close end
  end
  return function(prompt)
    if is_terminal then
      io.write(prompt)
      io.flush()
    end
    return io.read "l"
  end, function() end
end

-- Compiles an expression or a statement; nil and "more" while the source is incomplete.
local function compile(source)
  local chunk = load("return " .. source, "=repl", "t")
  if chunk then return chunk end
  local statement, why = load(source, "=repl", "t")
  if statement then return statement end
  return nil, why:find "<eof>$" and "more" or why
end

local function print_error(message)
  io.stderr:write(text.printable(tostring(message):match "^[^\n]*"), "\n")
end

local function run_chunk(chunk)
  local result = table.pack(xpcall(chunk, tostring))
  if not result[1] then
    print_error(result[2])
    return
  end
  if result.n == 1 then return end
  local list = {}
  for i = 2, result.n do
    local ok, shown = pcall(words.show, result[i])
    list[i - 1] = ok and shown or "(an error of __tostring)"
  end
  print(table.concat(list, "\t"))
end

function repl.run()
  _G.attune = require "attune"
  local read, close = reader()
  local source
  while true do
    local line = read(source and ">> " or "> ")
    if not line then break end
    -- A second empty line gives an unfinished statement up.
    if source and line == "" and source:find "\n$" then
      source = nil
    else
      source = source and source .. "\n" .. line or line
      local chunk, why = compile(source)
      if chunk then
        source = nil
        run_chunk(chunk)
      elseif why ~= "more" then
        source = nil
        print_error(why)
      end
    end
  end
  close()
  return 0
end

return repl
