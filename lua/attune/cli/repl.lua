local repl = {summary = "a Lua prompt with attune loaded"}

local function reader()
  local ok, readline = pcall(require, "readline")
  if ok and require "luv".guess_handle(0) == "tty" then
    return function(prompt)
      local line = readline.readline(prompt)
      if line and line ~= "" then readline.add_history(line) end
      return line
    end
  end
  local tty = require "luv".guess_handle(0) == "tty"
  return function(prompt)
    if tty then
      io.write(prompt)
      io.flush()
    end
    return io.read "l"
  end
end

-- Compiles an expression or a statement; nil and "more" while the source is incomplete.
local function compile(source)
  local chunk = load("return " .. source, "=repl", "t")
  if chunk then return chunk end
  local statement, why = load(source, "=repl", "t")
  if statement then return statement end
  return nil, why:find "<eof>$" and "more" or why
end

function repl.run()
  _G.attune = require "attune"
  local read, source = reader(), nil
  while true do
    local line = read(source and ">> " or "> ")
    if not line then break end
    source = source and source .. "\n" .. line or line
    local chunk, why = compile(source)
    if chunk then
      source = nil
      local result = table.pack(xpcall(chunk, tostring))
      if not result[1] then io.stderr:write(tostring(result[2]):match "^[^\n]*", "\n")
      elseif result.n > 1 then
        local shown = {}
        for i = 2, result.n do shown[i - 1] = tostring(result[i]) end
        print(table.concat(shown, "\t"))
      end
    elseif why ~= "more" then
      source = nil
      io.stderr:write(why, "\n")
    end
  end
  return 0
end

return repl
