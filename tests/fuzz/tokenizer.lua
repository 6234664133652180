--- lua5.4 tests/fuzz/tokenizer.lua [--seed N] [--count N] [--seconds N] [--case N]
---
--- Loads mutated tokenizer.json files, made from small tokenizers and from the golden files. Each
--- loads, or gives nil and one line that starts with the path. What loads encodes texts to ids
--- that it can decode, by list and by stream alike. An error while it encodes is one line about
--- the text. No file takes longer than four seconds. --case repeats one case and keeps its file.
local folder = arg[0]:gsub("[^/]*$", "")
package.path = folder .. "?.lua;" .. package.path
local json = require "attune.util.json"
local model = require "attune.model"
local mutate = require "mutate"
local options = require "options"(arg, {seed = 1, count = 4000, seconds = 60})

local max_seconds = 4
local path = os.tmpname()

local texts = {
  "", "Hello, world 123", "  é\u{301} \u{2581}a\n\n", "<s>ab</s> <0x41>\0 tokens", "日本 👩\u{200d}👩",
  ("a"):rep(300), (" x"):rep(100),
}

local kinds = {"gpt2", "falcon", "llama3", "qwen2", "llama2", "metaspace", "gemma", "starcoder"}

local originals = {}
local function golden(kind)
  if not originals[kind] then
    local f = assert(io.open(folder .. "../golden/tokenizers/" .. kind .. "/tokenizer.json"))
    originals[kind] = f:read "a"
    f:close()
  end
  return originals[kind]
end

-- The parts of a tokenizer.json but its vocabulary, small enough that mutations find them.
local pieces = {
  normalizer = {
    {type = "NFC"}, {type = "Prepend", prepend = "\u{2581}"},
    {type = "Replace", pattern = {String = " "}, content = "\u{2581}"},
    {type = "Replace", pattern = {Regex = " {2,}"}, content = "aa"},
    {type = "Strip", strip_left = true, strip_right = true},
    {type = "Sequence",
      normalizers = json.list {{type = "NFD"}, {type = "Prepend", prepend = "a"}}},
    {type = "Precompiled", precompiled_charsmap = "CAAAAAAEAAAABAAAYQBiAA=="},
  },
  pre_tokenizer = {
    {type = "ByteLevel", add_prefix_space = true, use_regex = true}, {type = "WhitespaceSplit"},
    {type = "Split", pattern = {Regex = "(a|aa)+b|\\s+"}, behavior = "Isolated", invert = false},
    {type = "Split", pattern = {String = "a"}, behavior = "MergedWithNext", invert = true},
    {type = "Digits", individual_digits = true}, {type = "Punctuation", behavior = "Contiguous"},
    {type = "Metaspace", replacement = "\u{2581}", prepend_scheme = "first", split = true},
  },
  decoder = {
    {type = "ByteLevel"}, {type = "Metaspace", replacement = "\u{2581}", prepend_scheme = "always"},
    {type = "Sequence", decoders = json.list {
      {type = "Replace", pattern = {String = "\u{2581}"}, content = " "}, {type = "ByteFallback"},
      {type = "Fuse"}, {type = "Strip", content = " ", start = 1, stop = 1},
    }},
  },
  post_processor = {
    {type = "TemplateProcessing", special_tokens = {["<s>"] = {id = "<s>", ids = json.list {5}}},
      single = json.list {{SpecialToken = {id = "<s>"}}, {Sequence = {id = "A"}}}},
    {type = "BertProcessing", cls = json.list {"<s>", 5}, sep = json.list {"</s>", 6}},
  },
}

local function small()
  local tree = {
    added_tokens = json.list {
      {id = 5, content = "<s>", special = true, lstrip = mutate.chance(0.5), single_word = false},
      {id = 9, content = "tokens", special = false, normalized = true, rstrip = true,
        single_word = true},
    },
  }
  if mutate.chance(0.5) then
    tree.model = {
      type = "BPE", vocab = {a = 0, b = 1, ab = 2, ["\u{2581}"] = 3, aab = 4}, unk_token = "b",
      merges = json.list {"a b", json.list {"a", "ab"}}, byte_fallback = true, fuse_unk = true,
    }
  else
    tree.model = {type = "Unigram", unk_id = 0, vocab = json.list {
      json.list {"<unk>", 0}, json.list {"a", -1.5}, json.list {"ab", -2}, json.list {"b", -3.25},
    }}
  end
  -- Not in the order of pairs, which no seed decides.
  for _, name in ipairs {"normalizer", "pre_tokenizer", "decoder", "post_processor"} do
    if mutate.chance(0.7) then tree[name] = mutate.copy(mutate.pick(pieces[name])) end
  end
  return tree
end

local absurd = mutate.absurd {
  function() return mutate.pick {"(", "(a+)+$", "\\p{Foo}", "[^", "(?R)", ".*", "a{9999}"} end,
  function() return mutate.pick {"BPE", "Unigram", "Sequence", "ByteLevel", "NFC", "Fuse"} end,
  function() return mutate.pick {"AAAA", "////", "CAAAAP////8A", "x", "====", ("A"):rep(4000)} end,
  function() return mutate.pick {"a", "ab", "\u{2581}", "<s>", "<0x41>", "a b", " "} end,
}

local function content()
  if mutate.chance(0.1) then return mutate.bytes(golden(mutate.pick(kinds))) end
  local tree = mutate.chance(0.1) and json.decode(golden(mutate.pick(kinds))) or small()
  for _ = 1, math.random(0, 3) do mutate.tree(tree, absurd) end
  local ok, text = pcall(json.encode, tree)
  if not ok then return content() end -- a mutation that JSON cannot write
  return mutate.chance(0.1) and mutate.bytes(text) or text
end

-- What is wrong with an error while a text is encoded or decoded, or nil.
local function unclear(why)
  if type(why) == "string" and why:find "^text: " and not why:find "[%c]" then return nil end
  return "raised an error: " .. tostring(why)
end

local function use(tokenizer, s)
  local ok, ids = pcall(tokenizer.encode, tokenizer, s, {special = true})
  if not ok then return unclear(ids) end
  local decoded
  ok, decoded = pcall(tokenizer.decode, tokenizer, ids, {special = true})
  if not ok then return unclear(decoded) end
  if not utf8.len(decoded) then return "decoded to what is no UTF-8" end
  local stream, out = tokenizer:stream {special = true}, {}
  for i, id in ipairs(ids) do
    out[i] = stream:push(id)
    if not utf8.len(out[i]) then return "a stream gave what is no UTF-8" end
  end
  out[#out + 1] = stream:finish()
  if table.concat(out) ~= decoded then return "a stream and decode differ" end
end

local function check(case)
  math.randomseed(options.seed, case)
  local f = assert(io.open(path, "wb"))
  f:write(content())
  f:close()
  local start = os.clock()
  local ok, tokenizer, message = pcall(model.tokenizer, path)
  local outcome
  if not ok then
    outcome = "raised an error: " .. tostring(tokenizer)
  elseif not tokenizer then
    if type(message) ~= "string" or message:find "[%c]" or message:sub(1, #path) ~= path then
      outcome = ("expected one line with the path, got %q"):format(tostring(message))
    end
  else
    for _, s in ipairs(texts) do outcome = outcome or use(tokenizer, s) end
  end
  local seconds = os.clock() - start
  if seconds > max_seconds then outcome = outcome or ("took %.1f seconds"):format(seconds) end
  return outcome, ok and tokenizer
end

local began, done, loaded, findings = os.time(), 0, 0, 0
for case = options.case or 1, options.case or options.count do
  if os.time() - began > options.seconds then break end
  local outcome, whole = check(case)
  done = done + 1
  if whole then loaded = loaded + 1 end
  if outcome then
    findings = findings + 1
    print(("case %d (seed %d): %s"):format(case, options.seed, outcome))
  end
end
if options.case then print("the file: " .. path) else os.remove(path) end
print(("%d files, %d loaded, %d findings"):format(done, loaded, findings))
-- A fuzzer whose files all load, or all fail, tests little.
os.exit(findings == 0 and (options.case ~= nil or loaded > done // 20 and loaded < done), true)
