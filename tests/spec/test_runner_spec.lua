--- tests/run itself: suites that fail, crash or end early are failures. The suites here are shell
--- scripts that print what cmocka and busted print.
local run = require "tests.support.run"

describe("tests/run", function()
  local folder

  --- Runs one suite, a script with this text; the runner's output and exit status.
  local function suite(text, settings)
    folder = run.folder()
    assert(os.execute("mkdir -p " .. folder .. "/tests"))
    local path = folder .. "/tests/test_sample"
    local f = assert(io.open(path, "w"))
    f:write("#!/bin/bash\n", text, "\n")
    f:close()
    assert(os.execute("chmod +x " .. path))
    local pipe = io.popen(
      ("%s ATTUNE_ISA=c tests/run %s c 2>&1; echo \"exit $?\""):format(settings or "", folder)
    )
    local said = pipe:read "a"
    pipe:close()
    return said
  end

  after_each(function() run.remove(folder) end)

  local function is_failure(text, why, settings)
    local said = suite(text, settings)
    assert.truthy(said:find("exit 1", 1, true), said)
    assert.truthy(said:find(why), said)
    local failed = said:match "passed, (%d+) failed\nexit 1"
    assert.truthy(failed and tonumber(failed) > 0, said)
  end

  it("counts passed and skipped tests, with the plan first or last", function()
    local said = suite "printf '1..3\nok 1 - a\nchatter\nok 2 - b\nnot ok 3 # SKIP c\n'"
    assert.truthy(said:find("test_sample (c): 2 passed, 0 failed, 1 skipped", 1, true), said)
    assert.truthy(said:find "2 passed, 0 failed\nexit 0", said)
    said = suite "printf 'ok 1 - a\nok 2 - # SKIP b\n1..2\n'"
    assert.truthy(said:find "1 passed, 0 failed\nexit 0", said)
  end)

  it("counts every group of one program", function()
    local said = suite "printf '1..1\nok 1 - a\n1..2\nok 1 - b\nok 2 - c\n'"
    assert.truthy(said:find "3 passed, 0 failed\nexit 0", said)
    is_failure("printf '1..2\nok 1 - a\n1..1\nok 1 - b\n'", "2 tests planned, 1 results")
  end)

  it("shows what failed", function()
    is_failure("printf '1..2\nok 1 - a\nnot ok 2 - bad\n# 1 ~= 2\n'; exit 1", "failed: bad")
    is_failure("printf '1..2\nok 1 - a\nnot ok 2 - bad\n# 1 ~= 2\n'; exit 1", "# 1 ~= 2")
    is_failure("printf '1..1\nnot ok 1 - bad\n'; exit 0", "failed: bad")
  end)

  it("takes a crash for a failure", function()
    is_failure("printf '1..2\nok 1 - a\n'; kill -SEGV $$", "2 tests planned, 1 results")
    is_failure("printf '1..1\nok 1 - a\n'; kill -ABRT $$", "exit status 134")
    is_failure("printf 'ok 1 - a\n1..1\n'; exit 3", "exit status 3")
  end)

  it("takes an early exit for a failure", function()
    is_failure("printf '1..2\nok 1 - a\n'; exit 0", "2 tests planned, 1 results")
    is_failure("printf 'ok 1 - a\n'; exit 0", "without a plan")
  end)

  it("takes a suite without tests for a failure", function()
    is_failure("exit 0", "no test ran")
    is_failure("echo 1..0", "no test ran")
    is_failure("echo '[  PASSED  ] 12 test(s).'", "no test ran")
  end)

  it("takes results out of order for a failure", function()
    is_failure("printf '1..2\nok 1 - a\nok 1 - a\n'", "result 1 where result 2 was expected")
    is_failure("printf '1..2\nok 1 - a\nok 3 - c\n'", "result 3 where result 2 was expected")
    is_failure("printf '1..1\nok 1 - a\nBail out! no disk\n'", "Bail out! no disk")
  end)

  it("stops a suite that hangs", function()
    is_failure("printf '1..1\n'; sleep 60", "exit status 124", "ATTUNE_TEST_TIMEOUT=1")
  end)

  it("writes JUnit files", function()
    local junit = run.folder()
    suite("printf '1..2\nok 1 - a <b>\nnot ok 2 - bad\n# 1 < 2\n'; exit 1", "JUNIT=" .. junit)
    local text = assert(io.open(junit .. "/test_sample__c_.xml")):read "a"
    run.remove(junit)
    assert.truthy(text:find('tests="2" failures="1" skipped="0"', 1, true), text)
    assert.truthy(text:find('name="a &lt;b&gt;"', 1, true), text)
    assert.truthy(text:find("<failure># 1 &lt; 2</failure>", 1, true), text)
  end)
end)
