-- The experiments that take a model, with tiny ones that have a tokenizer.
local attune = require "attune"
local files = require "attune.util.files"
local model_copy = require "tests.support.model_copy"
local run = require "tests.support.run"

-- A golden model with another vocabulary, that of a golden tokenizer, and its folder.
local function with_model(name, tokenizer, change, body)
  local path = "tests/golden/tokenizers/" .. tokenizer .. "/tokenizer.json"
  model_copy.with_folder(name, function(c, t)
    c.vocab_size = require "attune.text".load(path).size
    for _, table_name in ipairs {"wte", "model.embed_tokens", "shared", "lm_head"} do
      local weight = t[table_name .. ".weight"]
      if weight then
        t[table_name .. ".weight"] = attune.randn({c.vocab_size, weight.shape[2]}, {seed = 1})
      end
    end
    change(c, t)
  end, function(folder)
    assert(files.write(folder .. "/tokenizer.json", files.read(path)))
    body(folder)
  end)
end

local function run_experiment(name, folder, options)
  local said, status
  run.with_folder(function(out)
    local form = "ATTUNE_TEXT=docs/models.md %s/attune run experiments/%s.lua %s --out %s %s"
    local build = os.getenv "ATTUNE_BUILD_DIR" or "build"
    said, status = run.in_folder(".", form:format(build, name, folder, out, options))
  end)
  return said, status
end

describe("real_model", function()
  it("leaves room for what it generates where learned positions end", function()
    with_model("gpt2", "gpt2", function(c, t)
      c.n_positions = 160
      t["wpe.weight"] = attune.randn({160, 32}, {seed = 2})
    end, function(folder)
      local said, status = run_experiment("real_model", folder, "--only 'part == \"lookup\"'")
      assert.equal(0, status, said)
      assert.falsy(said:find("failed", 1, true), said)
    end)
  end)
  it("leaves out kv heads of latent attention", function()
    with_model("deepseek_v3", "llama3", function() end, function(folder)
      local said, status = run_experiment("real_model", folder,
        "--set tokens=64 --only 'layer >= 0'")
      assert.equal(0, status, said)
      assert.truthy(said:find("skipped", 1, true), said)
      assert.falsy(said:find("failed", 1, true), said)
    end)
  end)
end)

describe("an experiment with a model", function()
  it("refuses one that has an encoder", function()
    with_model("t5", "t5", function() end, function(folder)
      for _, name in ipairs {"real_model", "where_heads_look"} do
        local said, status = run_experiment(name, folder, "--quick")
        assert.equal(2, status)
        assert.truthy(said:find("expected a model without encoder, got one with", 1, true), said)
      end
    end)
  end)
end)
