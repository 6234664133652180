--- Reads `--name N` for each default; `--case N` is known to every fuzzer.
return function(words, defaults)
  local options = {}
  for name, value in pairs(defaults) do options[name] = value end
  for i = 1, #words, 2 do
    local name = words[i]:match "^%-%-(%a+)$"
    local value = math.tointeger(tonumber(words[i + 1]))
    if not name or not value or (name ~= "case" and defaults[name] == nil) then
      io.stderr:write(("%s: unknown option '%s'\n"):format(words[0], words[i]))
      os.exit(2)
    end
    options[name] = value
  end
  return options
end
