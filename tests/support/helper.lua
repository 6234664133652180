-- Run before each spec file: every random test takes its seed from here, and says it when it fails.
_G.test_seed = tonumber(os.getenv "ATTUNE_TEST_SEED") or 1
