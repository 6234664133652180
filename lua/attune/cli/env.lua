local env = {summary = "print the exports with which a plain lua5.4 finds attune: eval \"$(attune env)\""}

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

function env.run()
  for _, name in ipairs {"LUA_PATH", "LUA_CPATH"} do print(("export %s=%s"):format(name, quote(os.getenv(name) or ";;"))) end
  return 0
end

return env
