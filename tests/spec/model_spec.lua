-- Loading models: what config.json and the tensors may say. Sessions, generation and sampling.
local attune = require "attune"
local expect = require "tests.support.expect"
local golden = require "tests.support.golden"
local json = require "attune.util.json"
local model = require "attune.model"
local model_copy = require "tests.support.model_copy"

local source, with_model = model_copy.source, model_copy.with_folder

local function t5_logits(change)
  local result
  with_model("t5", change, function(folder)
    result = assert(model.load(folder)):forward({{5, 17, 3}}, {decoder_ids = {{0, 4}}})
  end)
  return result
end

local function refused(name, change, expected)
  with_model(name, change, function(folder)
    local m, message, code = model.load(folder)
    assert.is_nil(m)
    assert.same("EFORMAT", code)
    assert.truthy(message:find(expected, 1, true), message .. " / " .. expected)
    assert.truthy(message:find(folder, 1, true), message)
  end)
end

local function logits_after(name, change)
  local logits
  with_model(name, change, function(folder)
    logits = assert(model.load(folder)):forward {{5, 17, 3, 90, 41}}
  end)
  return logits
end

describe("a configuration", function()
  it("with an unknown field is an error, or a warning", function()
    local function change(c) c.attention_biass = true end
    refused("llama_tied", change,
      "unknown field 'attention_biass' = true of model_type 'llama'; did you mean")
    with_model("llama_tied", change, function(folder)
      local m = assert(model.load(folder, {unknown = "warn"}))
      assert.same(1, #m.warnings)
      assert.truthy(m.warnings[1]:find("attention_biass", 1, true))
      assert.has_error(function() model.load(folder, {unknown = "ignore"}) end)
    end)
  end)
  it("may say nothing in unknown fields, and name code, which is not run", function()
    with_model("llama_tied", function(c)
      c.new1, c.new2, c.new3, c.new4 = false, 0, "", json.list()
      c.auto_map = {AutoModel = "evil.Model"}
    end, function(folder) assert(model.load(folder)) end)
  end)
  it("is read in the spelling of transformers 4 and 5", function()
    local new = logits_after("llama_yarn", function(c)
      local s = c.rope_scaling
      c.rope_parameters = {
        rope_type = "yarn", factor = s.factor, rope_theta = c.rope_theta,
        original_max_position_embeddings = s.original_max_position_embeddings,
      }
      c.rope_scaling, c.rope_theta = nil, nil
    end)
    assert.same(0, golden.difference(new, logits_after("llama_yarn", function() end)))
    local both = logits_after("gpt2", function(c) c.hidden_size = c.n_embd end)
    assert.same(0, golden.difference(both, logits_after("gpt2", function() end)))
  end)
  it("scales RoPE in every way, and yarn by mscale only beside mscale_all_dim", function()
    local plain = logits_after("llama_yarn", function() end)
    local same = logits_after("llama_yarn", function(c) c.rope_scaling.mscale = 2 end)
    assert.same(0, golden.difference(plain, same))
    local both = logits_after("llama_yarn", function(c)
      c.rope_scaling.mscale, c.rope_scaling.mscale_all_dim = 2, 0.5
    end)
    assert.truthy(golden.difference(plain, both) > 1e-4)
    local pairs_of = {1, 2, 3, 4}
    for _, scaling in ipairs {
      {rope_type = "linear", factor = 4}, {type = "dynamic", factor = 4},
      {
        rope_type = "llama3", factor = 8, low_freq_factor = 1, high_freq_factor = 4,
        original_max_position_embeddings = 16,
      },
      {
        type = "su", short_factor = pairs_of, long_factor = pairs_of, factor = 4,
        original_max_position_embeddings = 16,
      },
    } do
      local logits = logits_after("llama_yarn", function(c)
        c.rope_scaling, c.max_position_embeddings = scaling, 4
      end)
      assert.truthy(golden.difference(plain, logits) > 1e-4, scaling.rope_type or scaling.type)
    end
  end)
  it("may say null, which is not the default where the published code knows none", function()
    local plain = logits_after("gemma2", function() end)
    local free = logits_after("gemma2", function(c)
      c.attn_logit_softcapping, c.final_logit_softcapping = json.null, json.null
    end)
    local large = logits_after("gemma2", function(c)
      c.attn_logit_softcapping, c.final_logit_softcapping = 1e4, 1e4
    end)
    assert.truthy(golden.difference(free, large) < 1e-3)
    assert.truthy(golden.difference(free, plain) > 1e-3)
  end)
  it("may say again what follows from other fields", function()
    for _, row in ipairs {
      {"gpt_bigcode", "num_key_value_heads", 1, 2}, {"deepseek_v3", "qk_head_dim", nil, 5},
    } do
      local name, field, right, wrong = table.unpack(row, 1, 4)
      local function change(value)
        return function(c) c[field] = value or c.qk_nope_head_dim + c.qk_rope_head_dim end
      end
      assert.same(0, golden.difference(logits_after(name, function(c) c[field] = nil end),
        logits_after(name, change(right))))
      refused(name, change(wrong), field)
    end
  end)
  it("may scale the input of T5's head or not", function()
    local plain = t5_logits(function(c) c.scale_decoder_outputs = false end)
    local scaled = t5_logits(function() end) * 24 ^ 0.5
    assert.truthy(golden.difference(plain, scaled) < 1e-4)
  end)
  it("may list the layers of Gemma 4 that differ, and let BLOOM add to what is normed", function()
    local function listed(c)
      local kv, d = c.num_global_key_value_heads, c.global_head_dim
      c.per_layer_config = {}
      for i, kind in ipairs(c.layer_types) do
        if kind == "full_attention" then
          c.per_layer_config[tostring(i - 1)] = {head_dim = d, num_key_value_heads = kv}
        end
      end
      c.num_global_key_value_heads, c.global_head_dim = nil, nil
    end
    assert.same(0, golden.difference(logits_after("gemma4_k_eq_v", listed),
      logits_after("gemma4_k_eq_v", function() end)))
    refused("gemma4_k_eq_v", function(c) c.per_layer_config = {["0"] = {heads = 3}} end,
      "unknown field 'heads' of per_layer_config")
    local normed = logits_after("bloom", function(c)
      c.apply_residual_connection_post_layernorm = true
    end)
    assert.truthy(golden.difference(normed, logits_after("bloom", function() end)) > 1e-2)
    refused("bloom", function(c) c.slow_but_exact, c.pretraining_tp = true, 2 end, "slow_but_exact")
  end)
  it("that says one thing twice and differently is refused", function()
    refused("gpt2", function(c) c.hidden_size = 33 end,
      "'n_embd' is 32; expected one value")
    refused("llama_tied", function(c) c.rope_theta = 5 end, "rope_theta and rope_parameters")
    refused("llama_yarn", function(c) c.rope_scaling.rope_type = "linear" end,
      "rope_type is 'linear' and type is 'yarn'")
  end)
  it("that lacks a field, or has one of another kind, is refused", function()
    refused("llama_tied", function(c) c.hidden_size = nil end, "expected the field 'hidden_size'")
    refused("llama_tied", function(c) c.hidden_size = "32" end,
      "hidden_size: expected an integer of at least 1, got '32'")
    refused("llama_tied", function(c) c.model_type = "lama" end,
      "unknown model_type 'lama'; did you mean 'llama'")
    refused("llama_tied", function(c) c.rope_parameters.rope_type = "odd" end, "got 'odd'")
    refused("llama_tied", function(c) c.num_key_value_heads = 3 end,
      "num_key_value_heads: expected a divisor of the 4 heads, got 3")
    refused("llama_tied", function(c) c.hidden_act = "mish" end, "got 'mish'")
    refused("mpt", function(c) c.attn_config.rope = true end, "unknown field 'rope' of attn_config")
    refused("llama_yarn", function(c) c.rope_scaling.beta = 2 end,
      "unknown field 'beta' of rope_scaling of type 'yarn'")
  end)
end)

describe("the tensors of a model", function()
  it("must all be there, with their shapes, and no others", function()
    refused("llama_tied", function(_, t) t["model.norm.weight"] = nil end,
      "expected a tensor 'model.norm.weight', got none")
    refused("llama_tied", function(_, t) t["model.norm.weight"] = attune.ones {31} end,
      "tensor 'model.norm.weight': expected shape [32], got [31]")
    refused("llama_tied", function(_, t) t["model.layers.2.x"] = attune.ones {31} end,
      "expected no other tensors, got 1: 'model.layers.2.x'")
  end)
  it("may hold a head that is tied, and what is derived", function()
    with_model("llama_tied", function(_, t)
      t["lm_head.weight"] = t["model.embed_tokens.weight"]:to "f32"
      t["model.layers.0.self_attn.rotary_emb.inv_freq"] = attune.ones {4}
    end, function(folder) assert(model.load(folder)) end)
  end)
end)

describe("tensors that no code reads", function()
  local function same(name, change)
    local ids = {{5, 17, 3, 90, 41, 8, 23, 4}}
    local d = model_copy.load(name, change):forward(ids) - model_copy.load(name):forward(ids)
    assert.equal(0, d:abs():max():item(), name)
  end
  it("are frequencies of old files", function()
    for _, name in ipairs {"stablelm", "phi", "starcoder2", "cohere", "phi3"} do
      same(name, function(_, t)
        t["model.layers.0.self_attn.rotary_emb.inv_freq"] = attune.ones {4}
      end)
    end
  end)
  it("are layers for multi-token prediction", function()
    for _, field in ipairs {"num_nextn_predict_layers", "num_mtp_layers"} do
      same("deepseek_v3", function(c, t)
        c.num_nextn_predict_layers = nil
        c[field] = 1
        t["model.layers.2.enorm.weight"] = attune.ones {32}
      end)
    end
    refused("deepseek_v3", function(_, t) t["model.layers.2.enorm.weight"] = attune.ones {32} end,
      "expected no other tensors")
  end)
  it("are keys and values of layers that use those of another", function()
    same("gemma4_shared_kv", function(_, t)
      for _, part in ipairs {"k_proj", "v_proj", "k_norm"} do
        t[("model.layers.3.self_attn.%s.weight"):format(part)] = attune.ones {2, 2}
      end
    end)
    refused("gemma4_shared_kv", function(_, t)
      t["model.layers.1.self_attn.other.weight"] = attune.ones {32}
    end, "expected no other tensors")
  end)
end)

describe("generation_config.json", function()
  local files = require "attune.util.files"
  -- The model whose folder has such a file; config.json names id 7.
  local function with_generation(text, body)
    with_model("llama_tied", function(c) c.eos_token_id = 7 end, function(folder)
      if text then assert(files.write(folder .. "/generation_config.json", text)) end
      body(folder)
    end)
  end
  it("names the ids that end a text, else config.json does", function()
    for text, expected in pairs {
      [false] = 7, ["{}"] = 7, ['{"eos_token_id": null, "top_p": 0.9}'] = 7,
      ['{"eos_token_id": 9}'] = 9, ['{"eos_token_id": [7, 9.0]}'] = {7, 9},
    } do
      with_generation(text, function(folder)
        assert.same(expected, assert(model.load(folder)).eos)
      end)
    end
    local prompt, free = {{5, 17, 3}}, nil
    with_generation(false, function(folder)
      free = assert(model.load(folder)):generate(prompt, {tokens = 8, stop = {}})[1]
    end)
    with_generation(('{"eos_token_id": [95, %d]}'):format(free[5]), function(folder)
      assert.same(table.move(free, 1, 5, 1, {}), assert(model.load(folder)):generate(prompt)[1])
    end)
  end)
  it("that is malformed is an error", function()
    for text, expected in pairs {
      ["{"] = "expected a JSON object, got", ["5"] = "expected a JSON object, got 5",
      ['{"eos_token_id": "a"}'] = "eos_token_id: expected an id or a list of ids, got 'a'",
      ['{"eos_token_id": -1}'] = "eos_token_id: expected an id or a list of ids, got -1",
      ['{"eos_token_id": [1, 0.5]}'] = "eos_token_id: expected an id or a list of ids, got a table",
      ['{"eos_token_id": {"a": 1}}'] = "eos_token_id: expected an id or a list of ids",
    } do
      with_generation(text, function(folder)
        local m, message, code = model.load(folder)
        assert.same({nil, "EFORMAT"}, {m, code})
        local name = folder .. "/generation_config.json: "
        assert.truthy(message:find(name .. expected, 1, true), message)
      end)
    end
  end)
end)

describe("the head of T5", function()
  it("is the one that is stored, and the table where none is", function()
    local tied = t5_logits(function(c) c.tie_word_embeddings = false end)
    local scaled = t5_logits(function() end) * 24 ^ 0.5
    assert.truthy(golden.difference(tied, scaled) < 1e-4)
    local stored = t5_logits(function(c, t)
      c.tie_word_embeddings = false
      t["lm_head.weight"] = t["shared.weight"] * 2
    end)
    assert.truthy(golden.difference(stored, tied * 2) < 1e-4)
  end)
end)

describe("model.load", function()
  it("tells what is missing", function()
    local m, message = model.load "/nonexistent"
    assert.is_nil(m)
    assert.truthy(message:find("/nonexistent", 1, true))
    m, message = model.load(source)
    assert.is_nil(m)
    assert.truthy(message:find("config.json", 1, true), message)
    assert.has_error(function() model.load(5) end)
  end)
  -- llama.cpp's names of the tensors of T5.
  local function stored_names(tensors)
    local parts = {
      ["layer.0.layer_norm"] = "attn_norm", ["layer.1.layer_norm"] = "cross_attn_norm",
      ["layer.2.layer_norm"] = "ffn_norm", SelfAttention = "attn", EncDecAttention = "cross_attn",
      wi = "ffn_up", wo = "ffn_down", relative_attention_bias = "rel_b",
    }
    local stored = {}
    for name, x in pairs(tensors) do
      local side, i, layer, part = name:match "^(%a+)%.block%.(%d+)%.(layer%.%d%.)(.+)%.weight$"
      if side then
        local module, inner = part:match "^(%a+)%.(.+)$"
        local norm = parts[layer .. part]
        if side == "encoder" and layer == "layer.1." then norm = norm and "ffn_norm" end
        local short = norm or module == "DenseReluDense" and parts[inner]
          or parts[module] .. "_" .. (parts[inner] or inner)
        stored[("%s.blk.%s.%s.weight"):format(side:sub(1, 3), i, short)] = x
      elseif name == "shared.weight" then
        stored["token_embd.weight"] = x
      elseif name:find "final_layer_norm" then
        stored[name:sub(1, 3) .. ".output_norm.weight"] = x
      end
    end
    return stored
  end
  -- Its logits are those of the folder, which golden logits check.
  it("reads T5 from a GGUF file as from a folder", function()
    local stored, metadata
    local function change(c, tensors)
      c.relative_attention_max_distance = nil -- 128, which a GGUF file cannot say otherwise
      stored = stored_names(tensors)
      metadata = {
        ["general.architecture"] = "t5", ["t5.embedding_length"] = c.d_model,
        ["t5.feed_forward_length"] = c.d_ff, ["t5.block_count"] = c.num_layers,
        ["t5.decoder_block_count"] = c.num_decoder_layers, ["t5.context_length"] = 512,
        ["t5.attention.head_count"] = c.num_heads, ["t5.attention.key_length"] = c.d_kv,
        ["t5.attention.relative_buckets_count"] = c.relative_attention_num_buckets,
        ["t5.attention.layer_norm_rms_epsilon"] = 1e-6, ["t5.decoder_start_token_id"] = 0,
      }
    end
    with_model("t5", change, function(folder)
      local path = folder .. "/model.gguf"
      assert(attune.save(path, stored, metadata))
      local of_file, of_folder = assert(model.load(path)), assert(model.load(folder))
      local ids, targets = {{5, 17, 3, 90, 41, 8, 23, 4, 9}}, {decoder_ids = {{0, 7, 12, 33}}}
      local d = of_file:forward(ids, targets) - of_folder:forward(ids, targets)
      assert.truthy(d:abs():max():item() < 1e-5) -- epsilon is stored in f32
      assert.same(of_folder:generate(ids, {tokens = 6}), of_file:generate(ids, {tokens = 6}))
      metadata["general.architecture"] = "t5encoder"
      assert(attune.save(path, stored, metadata))
      local none, message = model.load(path)
      assert.falsy(none)
      assert.truthy(message:find("got 't5encoder', which has no decoder", 1, true))
    end)
  end)
  it("refuses a GGUF file of another architecture", function()
    local m, message = model.load "tests/golden/gguf/blocks.gguf"
    assert.is_nil(m)
    assert.truthy(message)
  end)
end)

describe("a model", function()
  local m = assert(model.load(source .. "falcon_7b"))
  local ids = {5, 17, 3, 90, 41, 8, 23}
  it("runs rows of different lengths", function()
    local both = m:forward {ids, {9, 4, 2}}
    assert.same({2, 7, 96}, both.shape)
    local alone = m:forward {{9, 4, 2}}
    assert.truthy(golden.difference(both:slice(1, 2, 2):slice(2, 1, 3):contiguous(), alone) < 1e-5)
    local out = m:generate({ids, {9, 4, 2}}, {tokens = 5, stop = {}})
    assert.same(m:generate({{9, 4, 2}}, {tokens = 5, stop = {}})[1], out[2])
    assert.same({12, 8}, {#out[1], #out[2]})
  end)
  it("refuses ids that it lacks", function()
    for expected, rows in pairs {
      ["ids from 0 to 95, got 96"] = {{96}}, ["ids from 0 to 95, got -1"] = {{-1}},
      ["got 'a'"] = {{"a"}}, ["got an empty one"] = {{}}, ["rows of token ids"] = {5},
    } do
      local ok, message = pcall(m.forward, m, rows)
      assert.is_false(ok)
      assert.truthy(message:find(expected, 1, true), message)
    end
    local gpt2 = assert(model.load(source .. "gpt2"))
    local long = {}
    for i = 1, 41 do long[i] = 1 end
    local ok, message = pcall(gpt2.forward, gpt2, {long})
    assert.is_false(ok)
    assert.truthy(message:find("at most 40 tokens", 1, true), message)
  end)
  it("has sessions that go back and are full at their context", function()
    local s = m:session {context = 8}
    local whole = s:append(ids)
    s:truncate(3)
    assert.same(3, s.length)
    local again = s:append {90, 41, 8, 23}
    assert.truthy(golden.difference(whole:slice(2, 4, 7):contiguous(), again) < 1e-5)
    local ok, message = pcall(s.append, s, {1, 2})
    assert.is_false(ok)
    assert.truthy(message:find("at most 1 more tokens in a context of 8, got 2", 1, true), message)
    assert.has_error(function() s:truncate(8) end)
    local mixed, prompt = assert(model.load(source .. "gemma3")):session {context = 200}, {}
    for i = 1, 150 do prompt[i] = i % 96 end
    mixed:append(prompt)
    assert.has_error(function() mixed:truncate(20) end)
    assert.same(150, mixed.length)
    assert.same({1, 1, 96}, mixed:append({5}).shape)
    assert.has_error(function() m:session {batch = 2}:append {ids} end)
    assert.has_error(function() m:session {contxt = 2} end)
  end)
  it("counts on after an append that failed", function()
    for _, name in ipairs {"llama_tied", "gemma3", "phi3_longrope"} do
      local of = assert(model.load(source .. name))
      local s = of:session {}
      s:append {1, 2}
      expect.fails_with("unknown summaries 'foo'", s.append, s, {9, 9, 9}, {summaries = {"foo"}})
      assert.same(2, s.length)
      local last = of:forward {{1, 2, 3}}:slice(2, 3, 3):contiguous()
      assert.truthy(golden.difference(last, s:append {3}) < 1e-4, name)
    end
  end)
  it("with several windows changes none of its caches where one refuses to go back", function()
    local mistral, prompt = assert(model.load(source .. "mistral")), {}
    for i = 1, 300 do prompt[i] = i * 37 % 96 end
    local s = mistral:with({window = 60}):with({window = 1, layers = {2}}):session {context = 400}
    s:append(prompt)
    expect.fails_with("n: expected at least 236", s.truncate, s, 235)
    for i, cache in pairs(s.caches) do assert.same({i, 300}, {i, cache.length}) end
    s:truncate(236)
    for i, cache in pairs(s.caches) do assert.same({i, 236}, {i, cache.length}) end
  end)
  it("with LongRoPE goes back to the rotations of a text of the trained length", function()
    local phi3, text = assert(model.load(source .. "phi3_longrope")), {}
    for i = 1, 30 do text[i] = i * 37 % 96 end
    local short = phi3:forward {table.move(text, 1, 12, 1, {})}
    local long = phi3:forward {text}
    local s = phi3:session {}
    for _, kept in ipairs {10, 0} do
      s:append(table.move(text, s.length + 1, 20, 1, {}))
      s:truncate(kept)
      local again = s:append(table.move(text, kept + 1, 12, 1, {}))
      assert.truthy(golden.difference(short:slice(2, kept + 1, 12):contiguous(), again) < 1e-4)
    end
    local rest = s:append(table.move(text, 13, 30, 1, {}))
    assert.truthy(golden.difference(long:slice(2, 13, 30):contiguous(), rest) < 1e-4)
  end)
  it("with ALiBi takes texts of any length", function()
    local long = {}
    for i = 1, 2100 do long[i] = (i * i * 7 + i * 31) % 96 end
    for _, name in ipairs {"falcon_rw", "bloom", "mpt"} do
      local few = model_copy.load(name, function(c)
        for _, field in ipairs {"max_position_embeddings", "max_seq_len", "seq_length"} do
          c[field] = c[field] and 4
        end
      end)
      local x = assert(model.load(source .. name))
      local logits = x:forward {long}
      assert.same(0, golden.difference(few:forward {ids}, x:forward {ids}))
      -- Tokens that follow change nothing.
      local part = x:forward {table.move(long, 1, 2040, 1, {})}
      assert.truthy(golden.difference(logits:slice(2, 1, 2040):contiguous(), part) < 1e-4, name)
      local s = x:session {context = 3000}
      s:append(table.move(long, 1, 2040, 1, {}))
      local last = s:append(table.move(long, 2041, 2100, 1, {}))
      assert.truthy(golden.difference(logits:slice(2, 2041, 2100):contiguous(), last) < 1e-4, name)
    end
  end)
  it("takes prompts longer than a piece, also where its caches are rings", function()
    for _, name in ipairs {"llama_tied", "mistral"} do
      local longer, prompt = assert(model.load(source .. name)), {}
      for i = 1, 300 do prompt[i] = i * 37 % 96 end
      local s = longer:session {context = 320}
      local d = golden.difference(s:append(prompt), longer:forward {prompt})
      assert.truthy(d < 1e-4, ("%s: %g"):format(name, d))
    end
  end)
  it("keeps its keys in other dtypes", function()
    local exact = m:session {context = 16}:append(ids)
    for dtype, bound in pairs {bf16 = 0.05, f16 = 0.01, i8 = 0.1} do
      local d = golden.difference(m:session {context = 16, cache = dtype}:append(ids), exact)
      assert.truthy(d > 0 and d < bound, ("%s: %g"):format(dtype, d))
    end
  end)
  it("stops at the ids of its configuration, at others, or never", function()
    local free = m:generate({ids}, {tokens = 24, stop = {}})[1]
    local stop = free[#ids + 4]
    local first
    for i = #ids + 1, #free do first = first or free[i] == stop and i end
    assert.same(first, #m:generate({ids}, {tokens = 24, stop = {stop}})[1])
    assert.same(#ids + 24, #free)
  end)
  it("draws the same ids for the same seed, and others for another", function()
    local function draw(o)
      o.tokens, o.stop = 16, {}
      return m:generate({ids}, o)[1]
    end
    local greedy = draw {}
    assert.same(draw {temperature = 1, seed = 3}, draw {temperature = 1, seed = 3})
    assert.not_same(draw {temperature = 1, seed = 3}, draw {temperature = 1, seed = 4})
    for _, o in ipairs {
      {temperature = 1, top_k = 1}, {temperature = 1, top_p = 1e-9}, {temperature = 1, min_p = 1},
      {temperature = 1e-6},
    } do
      o.seed = 5
      assert.same(greedy, draw(o))
    end
    assert.not_same(greedy, draw {repetition_penalty = 1000})
  end)
  it("refuses options of sampling out of range", function()
    for name, value in pairs {
      temperature = -1, top_k = 0, top_p = 1.5, min_p = 2, repetition_penalty = 0, seed = 0.5,
      tokens = 0, temprature = 1,
    } do
      local ok, message = pcall(m.generate, m, {ids}, {[name] = value})
      assert.is_false(ok, name)
      assert.truthy(message:find(name, 1, true), message)
    end
  end)
end)

describe("sampling", function()
  local sampling = require "attune.nn.sampling"
  it("draws in proportion to the probabilities that stay", function()
    local logits = attune.tensor {{math.log(0.5), math.log(0.3), math.log(0.15), math.log(0.05)}}
    local function counts(o)
      o.temperature, o.seed = o.temperature or 1, 7
      local s, n = sampling.new(o, 1), {0, 0, 0, 0}
      for step = 1, 4000 do
        local id = s:next(logits, {}, 1, step)
        n[id + 1] = n[id + 1] + 1
      end
      return n
    end
    local function check(o, expected)
      local n = counts(o)
      for i, p in ipairs(expected) do
        -- 5 standard deviations; the seed is fixed.
        local bound = 5 * math.sqrt(4000 * p * (1 - p))
        assert.truthy(math.abs(n[i] - 4000 * p) <= bound, ("%d: %d"):format(i, n[i]))
      end
    end
    check({}, {0.5, 0.3, 0.15, 0.05})
    check({top_k = 2}, {0.625, 0.375, 0, 0})
    check({top_p = 0.79}, {0.625, 0.375, 0, 0})
    check({top_p = 0.81}, {0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0})
    check({min_p = 0.29}, {0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0})
    check({temperature = 0.5}, {0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365})
  end)
  it("makes what is there already less likely", function()
    local s = sampling.new({repetition_penalty = 2}, 1)
    assert.same(1, s:next(attune.tensor {{4, 3, -1}}, {0}, 1, 1))
    assert.same(2, s:next(attune.tensor {{-1, -1, -1.5}}, {0, 1, 1}, 1, 1))
    assert.same(0, s:next(attune.tensor {{4, 1, -1}}, {2}, 1, 1))
  end)
end)
