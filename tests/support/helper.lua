-- Run before each spec file: every random test takes its seed from here, and says it when it fails.
_G.test_seed = tonumber(os.getenv "ATTUNE_TEST_SEED") or 1

-- Under the address sanitizer a trial that a signal ends must still end by that signal.
if os.getenv "LD_PRELOAD" then
  local luv = require "luv"
  luv.os_setenv("ASAN_OPTIONS", (os.getenv "ASAN_OPTIONS" or "") .. ":handle_segv=0:handle_abort=0")
end

if os.getenv "ATTUNE_TEST_COLLECTOR" then require "tests.support.collector" end
