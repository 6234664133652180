local output = require "attune.cli.output"
local text = require "attune.util.text"

local env = {
  summary = 'print exports that let a plain lua5.4 find attune: eval "$(attune env)"',
}

function env.run()
  for _, name in ipairs {"LUA_PATH", "LUA_CPATH"} do
    output.write(("export %s=%s\n"):format(name, text.shell_quote(os.getenv(name) or ";;")))
  end
  return 0
end

return env
