rockspec_format = "3.0"
package = "attune"
version = "scm-1"
source = {url = "git+file://."}
description = {
  summary = "An attention laboratory: a C engine for attention, scripted in Lua",
  license = "Apache-2.0",
}
dependencies = {"lua >= 5.4", "luv", "argparse"}
build = {
  type = "make",
  build_target = "library",
  install_target = "install-rock",
  install_variables = {
    ROCK_LUA = "$(LUADIR)", ROCK_LIB = "$(LIBDIR)", ROCK_BIN = "$(BINDIR)",
  },
}
