--- Tokenizers: the golden ids and texts of every kind, streams, files that are malformed, misuse.
local attune = require "attune"
local expect = require "tests.support.expect"
local json = require "attune.util.json"
local model = require "attune.model"
local nfc = require "attune.text.nfc"
local utf = require "attune.text.utf"

local golden = "tests/golden/tokenizers/"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local content = file:read "a"
  file:close()
  return content
end

local function cases_of(name) return assert(json.decode(read(golden .. name .. "/cases.json"))) end

local function load_golden(name)
  local file = name:find "^gguf" and "/vocab.gguf" or "/tokenizer.json"
  return assert(model.tokenizer(golden .. name .. file))
end

-- What a stream of ids gives, piece by piece joined; every piece is UTF-8.
local function streamed(tokenizer, ids, options)
  local stream, out = tokenizer:stream(options), {}
  for i, id in ipairs(ids) do
    out[i] = stream:push(id)
    assert.truthy(utf8.len(out[i]))
  end
  out[#out + 1] = stream:finish()
  return table.concat(out)
end

local names = {
  "falcon", "gemma", "gguf_gpt2", "gguf_llama2", "gguf_llama3", "gpt2", "llama2", "llama3",
  "metaspace", "qwen2", "starcoder", "t5",
}
local special = {special = true}

describe("the tokenizer", function()
  for _, name in ipairs(names) do
    local tokenizer, cases
    setup(function()
      tokenizer, cases = load_golden(name), cases_of(name)
    end)
    it(name .. " gives the golden ids of every text", function()
      assert.is_true(#cases.texts > 90)
      for _, case in ipairs(cases.texts) do
        assert.same(case.ids, {table.unpack(tokenizer:encode(case.text))}, case.text)
        assert.same(case.ids_with_special, tokenizer:encode(case.text, special), case.text)
      end
    end)
    it(name .. " gives the golden text of ids, whole and as a stream", function()
      for _, case in ipairs(cases.texts) do
        assert.same(case.decoded, tokenizer:decode(case.ids, special))
        assert.same(case.decoded_without_special, tokenizer:decode(case.ids_with_special))
        assert.same(case.decoded, streamed(tokenizer, case.ids, special))
        assert.same(case.decoded_without_special, streamed(tokenizer, case.ids_with_special))
      end
      for _, case in ipairs(cases.decodes or {}) do
        assert.same(case.decoded, tokenizer:decode(case.ids, special))
        assert.same(case.decoded_without_special, tokenizer:decode(case.ids))
        assert.same(case.decoded, streamed(tokenizer, case.ids, special))
      end
    end)
  end
end)

describe("a tokenizer", function()
  it("names its size, its tokens and their ids", function()
    local gpt2 = load_golden "gpt2"
    assert.equal(560, gpt2.size)
    assert.equal("<|endoftext|>", gpt2:token(559))
    assert.equal(559, gpt2:id "<|endoftext|>")
    assert.is_nil(gpt2:token(560))
    assert.equal(1, load_golden "gguf_llama2".bos)
    assert.equal(2, load_golden "gguf_llama2".eos)
  end)
  it("is found in a folder", function()
    assert.equal(560, assert(model.tokenizer(golden .. "gpt2")).size)
  end)
  it("leaves out ids that the vocabulary lacks: models may have more rows", function()
    local gpt2 = load_golden "gpt2"
    assert.equal("!!", gpt2:decode {0, 100000, 0})
  end)
  it("encodes a long text without a pre-tokenizer in n log n steps", function()
    local llama2, long = load_golden "llama2", ("the other thing "):rep(2000)
    assert.equal(long, llama2:decode(llama2:encode(long)))
  end)
  it("decodes a long run of byte tokens in time that grows with its length", function()
    local llama2, long = load_golden "llama2", ("\u{4E2D}"):rep(30000)
    local ids = llama2:encode(long)
    assert.is_true(#ids >= 90000) -- no token has that character
    assert.equal(long, llama2:decode(ids))
  end)
  it("refuses what is no text, and text that is no UTF-8", function()
    local gpt2 = load_golden "gpt2"
    expect.fails_with("text: expected a string, got 7", function() gpt2:encode(7) end)
    expect.fails_with("text: expected UTF-8, got byte 0xFF at position 3", function()
      gpt2:encode "ab\xff"
    end)
    expect.fails_with("did you mean 'special'", function() gpt2:encode("a", {specal = true}) end)
    expect.fails_with("special: expected true or false", function()
      gpt2:encode("a", {special = 1})
    end)
    expect.fails_with("ids: expected a list", function() gpt2:decode "a" end)
    expect.fails_with("ids[2]: expected an integer of at least 0, got -1", function()
      gpt2:decode {1, -1}
    end)
    expect.fails_with("ids[1]: expected an integer", function() gpt2:decode {1.5} end)
    expect.fails_with("id: expected an integer of at least 0, got 'a'", function()
      gpt2:token "a"
    end)
    expect.fails_with("token: expected a string, got 5", function() gpt2:id(5) end)
    expect.fails_with("tokenizer: expected a tokenizer", function() gpt2.encode({}, "a") end)
  end)
  it("closes a stream that is finished", function()
    local stream = load_golden "gpt2":stream()
    stream:push(0)
    stream:finish()
    expect.fails_with("stream: expected an open stream", function() stream:push(0) end)
    expect.fails_with("id: expected an integer", function()
      load_golden "gpt2":stream():push "a"
    end)
  end)
end)

-- The pieces of a text, with | between them.
local function cut(regex, behaviour, s)
  local split = require "attune.text.pretokenizers".new(
    {type = "Split", pattern = {Regex = regex}, behavior = behaviour, invert = false}, "here")
  local words = {}
  for i, piece in ipairs(split {{s, true}}) do words[i] = piece[1] end
  return table.concat(words, "|")
end

-- What tokenizers 0.23.3 gives.
describe("a pattern whose matches are empty", function()
  it("cuts a text there", function()
    assert.equal("Hello World 1|234|567", cut("(?=(\\d{3})+(?!\\d))", "Isolated",
      "Hello World 1234567"))
    assert.equal("Hello |World", cut("(?=[A-Z])", "MergedWithNext", "Hello World"))
    assert.equal("Hel|l|o Worl|d", cut("(?<=l)", "Removed", "Hello World"))
    assert.equal("日|本|l", cut("x*", "Removed", "日本l"))
    assert.equal(" |a", cut("x*", "Removed", "xx axx"))
    assert.equal("a|l|l |l|l", cut("(?=l)|l", "Removed", "all ll"))
    assert.equal("", cut("x*", "Isolated", ""))
  end)
  it("is replaced there", function()
    local function replaced(regex, s)
      return require "attune.text.normalizers".new(
        {type = "Replace", pattern = {Regex = regex}, content = "-"}, "here")(s, 100)
    end
    assert.equal("-ab", replaced("^", "ab"))
    assert.equal("日-ab", replaced("(?=a)", "日ab"))
    assert.equal("ab-", replaced("$", "ab"))
    assert.equal("-b-", replaced("a|", "ab"))
  end)
end)

-- What tokenizers 0.23.3 gives, which runs patterns by Oniguruma.
describe("a pattern of Oniguruma", function()
  it("has ^ and $ at each line, and m for a dot that matches line feeds", function()
    assert.equal("a|  |\nb| \n\n", cut("\\s+$", "Isolated", "a  \nb \n\n"))
    assert.equal("a\n|b", cut("^ ", "Removed", " a\n b"))
    assert.equal("", cut("(?m)a.b", "Removed", "a\nb"))
    assert.equal("x|a\nb|c\n", cut("(?mi:A.)b|c.", "Isolated", "xa\nbc\n"))
  end)
  it("has escapes that PCRE2 reads in another way", function()
    assert.equal("x|faced0|g", cut("\\h+", "Isolated", "xfaced0g"))
    assert.equal("xg", cut("[\\h]+", "Removed", "0xg"))
    assert.equal("0", cut("\\H", "Removed", "0xg"))
    assert.equal("a|\v|b\nc", cut("\\v", "Isolated", "a\vb\nc"))
    assert.equal("a\u{301}b |b|\u{b2}b", cut("\\bb", "Isolated", "a\u{301}b b\u{b2}b"))
    assert.equal("a\u{301}|b| b\u{b2}|b", cut("\\Bb", "Isolated", "a\u{301}b b\u{b2}b"))
    assert.equal("\u{b2}", cut("[\\w]+", "Removed", "a\u{b2}\u{301}_1"))
    assert.equal("xa|aab", cut("a{,2}b", "Isolated", "xaaab"))
    assert.equal("1234567| |12", cut("\\d{1,3}+", "Isolated", "1234567 12"))
    assert.equal("|", cut("\\d{,2}+", "Removed", "12 34"):gsub(" ", "|"))
    assert.equal("x|123|1", cut("\\d{2,}+3", "Isolated", "x1231"))
    assert.equal("1|2|3", cut("\\d{1,3}?", "Isolated", "123"))
    for regex, message in pairs {
      ["a{2,3}+"] = "+ after {2,3} is not supported", ["a{2}?"] = "? after {2} is not supported",
      ["\\pL"] = "\\p: expected a name in braces", ["[\\H]"] = "\\H within a class",
      ["[\\W]"] = "\\W within a class", ["[[:graph:]]"] = "[:graph:] within a class",
      ["[[:^punct:]]"] = "[:^punct:] within a class", ["[a[^b]]"] = "a negated class within",
      ["[a-[cz]]"] = "a range up to a class", ["[a-z&&b]"] = "an intersection within a class",
    } do
      local tokenizer, why = require "attune.text.failure".catch(cut, regex, "Isolated", "a")
      assert.is_nil(tokenizer)
      assert.truthy(why:find("here.*: ") and why:find(message, 1, true), why)
    end
  end)
  it("has classes within classes, and classes and scripts of its own", function()
    -- BLOOM's pattern.
    assert.equal("So| ||it| (|is|)| so|,| \u{65e5}\u{672c}|\u{3002}|ok|!| x|||y",
      cut(" ?[^(\\s|[.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c}])]+", "Isolated",
        "So |it (is) so, \u{65e5}\u{672c}\u{3002}ok! x|y"))
    assert.equal("b", cut("[a[c-]-z]+", "Removed", "abc-z"))
    assert.equal("b|z", cut("[a[-c]]+", "Removed", "abc-z"))
    assert.equal("b", cut("[a[]c]]+", "Removed", "abc]"))
    assert.equal("a]", cut("[^]a]+", "Removed", "a]b"))
    assert.equal("\u{b2}\u{9f4}|\u{301}",
      cut("[[:alnum:]]+", "Removed", "a\u{b2}\u{9f4}1\u{301}"))
    assert.equal("a", cut("[[:punct:]]+", "Removed", "a$\u{20ac}\u{a9}.\u{3002}"))
    assert.equal("B\u{2160}", cut("[[:^upper:]]+", "Removed", "aB\u{2160}"))
    assert.equal("\u{3002}|x", cut("\\p{Han}+", "Removed", "\u{65e5}\u{3002}\u{672c}x"))
    assert.equal("\u{3042}", cut("\\p{^Hiragana}+", "Removed", "\u{65e5}\u{3002}\u{3042}x"))
    assert.equal("\u{3b1}", cut("\\P{Greek}+", "Removed", "\u{3b1}\u{342}b"))
    assert.equal("12.x|y", cut("\\P{L}+\\P{N}x", "Isolated", "12.xy"))
  end)
end)

-- A tokenizer of a golden file, changed by a function.
local function changed(name, change)
  local tree = assert(json.decode(read(golden .. name .. "/tokenizer.json")))
  change(tree)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(json.encode(tree))
  file:close()
  local tokenizer = assert(model.tokenizer(path))
  os.remove(path)
  return tokenizer
end

-- Each of these was found by comparing with tokenizers 0.23.3 on random settings and texts.
describe("as in Hugging Face's library,", function()
  local function newline_token(flags)
    return changed("gemma", function(t)
      for _, token in ipairs(t.added_tokens) do
        for flag, value in pairs(flags[token.content] or {}) do token[flag] = value end
      end
    end)
  end
  it("of white space that one token took, nothing is left for a token that strips", function()
    local tokenizer = newline_token {["\n"] = {single_word = true, lstrip = true, rstrip = true}}
    assert.same({491, 7}, tokenizer:encode "a\n \n ")
    assert.same({517, 7, 502}, tokenizer:encode "x \n y")
  end)
  it("a token that must be a word alone may follow a line", function()
    local tokenizer = changed("gemma", function(t)
      table.insert(t.added_tokens, {id = 640, content = "TOK", single_word = true})
    end)
    assert.equal(640, tokenizer:encode "a\nTOK" [3])
    assert.equal(640, tokenizer:encode "TOK\na" [1])
    assert.not_equal(640, tokenizer:encode "TOKa" [1])
  end)
  it("tokens that look at their neighbours take time that grows with the text", function()
    local function steps(n)
      local splitter = require "attune.text.added".splitter {
        {id = 1, content = "TOK", single_word = true, lstrip = true, rstrip = true},
      }
      local start = os.clock()
      for _ = 1, 3 do assert.equal(2 * n, #splitter(("a  TOK "):rep(n))) end
      return os.clock() - start
    end
    steps(10)
    assert.truthy(steps(16000) < 64 * steps(1000) + 0.1)
  end)
  it("but a token that does not strip is found again", function()
    local tokenizer = newline_token {["\u{2581}\u{2581}"] = {rstrip = true}}
    assert.same({10, 7, 491}, tokenizer:encode "\u{2581}\u{2581}\na")
  end)
  it("a token that is normalized is found after the others, and decoded as normalised", function()
    local tokenizer = changed("llama2", function(t)
      table.insert(t.added_tokens, {id = 620, content = "Query", normalized = true, special = true})
      table.insert(t.added_tokens, {id = 621, content = "ry!", normalized = false})
    end)
    assert.same({620}, tokenizer:encode "Query")
    assert.same("Query", tokenizer:decode({620}, special))
    local ids = tokenizer:encode "Query!"
    assert.equal(621, ids[#ids])
    assert.not_equal(620, ids[1])
  end)
  it("of two tokens that normalisation makes alike, the special one counts", function()
    local tokenizer = changed("gemma", function(t)
      for _, token in ipairs(t.added_tokens) do
        if token.content == "\u{2581}\u{2581}" then
          token.normalized, token.special, token.lstrip = true, true, true
        end
      end
      table.insert(t.added_tokens, {id = 640, content = "  ", normalized = true, special = false})
    end)
    assert.same({517, 10, 511}, tokenizer:encode "x\u{3000}  v")
  end)
  it("\\s and \\w in a pattern are Oniguruma's", function()
    local function pieces(regex, s)
      local tokenizer = changed("gpt2", function(t)
        t.pre_tokenizer = {type = "Sequence", pretokenizers = json.list {
          {type = "Split", pattern = {Regex = regex}, behavior = "Removed", invert = false},
          {type = "ByteLevel", add_prefix_space = false, use_regex = false},
        }}
      end)
      return tokenizer:decode(tokenizer:encode(s))
    end
    assert.equal("\u{180e}", pieces("\\s", " \u{180e}\u{a0}\u{3000}"))
    assert.equal("-\u{200d}", pieces("\\w", "a\u{301}_-\u{bd}1\u{200d}"))
    assert.equal("a\u{301}1", pieces("[^\\w]", "a\u{301}-1 "))
  end)
  it("Fuse joins the tokens before the next decoder", function()
    local tokenizer = changed("llama2", function(t)
      t.decoder = {type = "Sequence", decoders = json.list {
        {type = "Fuse"}, {type = "Metaspace", replacement = "\u{2581}", prepend_scheme = "always"},
      }}
    end)
    local ids = tokenizer:encode "the other the"
    assert.equal("theotherthe", tokenizer:decode(ids))
    assert.equal("theotherthe", streamed(tokenizer, ids))
  end)
end)

describe("a stream", function()
  it("gives a character only when it is whole", function()
    local gpt2 = load_golden "gpt2"
    local ids = gpt2:encode "\u{10ffff}"
    assert.is_true(#ids > 1)
    local stream = gpt2:stream()
    for i = 1, #ids - 1 do assert.equal("", stream:push(ids[i])) end
    assert.equal("\u{10ffff}", stream:push(ids[#ids]))
    assert.equal("", stream:finish())
  end)
  it("gives U+FFFD for a character that does not end", function()
    local gpt2 = load_golden "gpt2"
    local stream = gpt2:stream()
    assert.equal("", stream:push(gpt2:encode "\u{10ffff}"[1]))
    assert.equal("\u{fffd}", stream:finish())
  end)
end)

-- The message of loading a tokenizer.json, changed by a function.
local function refusal(name, change)
  local tree = assert(json.decode(read(golden .. name .. "/tokenizer.json")))
  change(tree)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(json.encode(tree))
  file:close()
  local tokenizer, message = model.tokenizer(path)
  os.remove(path)
  assert.is_nil(tokenizer)
  return (message:gsub("^" .. path:gsub("%p", "%%%0") .. ": ", ""))
end

describe("a tokenizer.json that is malformed gives nil and a message:", function()
  for what, row in pairs {
    ["a merge of unknown tokens"] = {"gpt2", function(t) t.model.merges[3] = "x yyyy" end,
      "merges[3]: expected tokens of the vocabulary, got 'x' and 'yyyy'"},
    ["a merge of three"] = {"gpt2", function(t) t.model.merges[1] = "a b c" end,
      "merges[1]: expected two tokens, got 'a b c'"},
    ["a merge that is a number"] = {"gpt2", function(t) t.model.merges[1] = 7 end,
      "merges[1]: expected two tokens, got a number"},
    ["a duplicate id"] = {"gpt2", function(t) t.model.vocab["!"] = 1 end,
      "model.vocab: duplicate id 1"},
    ["a negative id"] = {"gpt2", function(t) t.model.vocab["!"] = -1 end,
      "model.vocab: expected integers from 0 to 16777215 as ids, got -1 for '!'"},
    ["an id that is a text"] = {"gpt2", function(t) t.model.vocab["!"] = "0" end, "model.vocab"},
    ["no model"] = {"gpt2", function(t) t.model = nil end, "tokenizer.model: expected a table"},
    ["another model"] = {"gpt2", function(t) t.model.type = "WordPiece" end,
      "model.type: expected BPE or Unigram, got 'WordPiece'"},
    ["dropout"] = {"gpt2", function(t) t.model.dropout = 0.1 end, "model.dropout"},
    ["an unknown token that is none"] = {"llama2", function(t) t.model.unk_token = "?!?" end,
      "model.unk_token: expected a token of the vocabulary, got '?!?'"},
    ["a unigram score that is a text"] = {"t5", function(t) t.model.vocab[5][2] = "x" end,
      "model.vocab[5]: expected a token and a number"},
    ["a token of a megabyte"] = {"t5", function(t) t.model.vocab[5][1] = ("a"):rep(1 << 20) end,
      "model.vocab[5]: expected UTF-8 of at most 1024 bytes"},
    ["an unknown id that is none"] = {"t5", function(t) t.model.unk_id = 480 end, "model.unk_id"},
    ["a charsmap that is no base64"] = {"t5", function(t)
      t.normalizer.precompiled_charsmap = "ab*d"
    end, "expected base64"},
    ["a charsmap that claims too much"] = {"t5", function(t)
      t.normalizer.precompiled_charsmap = "////fwAAAAA="
    end, "expected a trie within 4 bytes"},
    ["an unknown normaliser"] = {"qwen2", function(t) t.normalizer.type = "BertNormalizer" end,
      "normaliser 'BertNormalizer' is not supported"},
    ["an unknown pre-tokeniser"] = {"gpt2", function(t) t.pre_tokenizer.type = "Jieba" end,
      "pre-tokeniser 'Jieba' is not supported"},
    ["an unknown decoder"] = {"gpt2", function(t) t.decoder.type = "CTC" end,
      "decoder 'CTC' is not supported"},
    ["an unknown post-processor"] = {"gpt2", function(t) t.post_processor.type = "X\27" end,
      "post-processor 'X\\x1b' is not supported"},
    ["a pattern with an error"] = {"qwen2", function(t)
      t.pre_tokenizer.pretokenizers[1].pattern.Regex = "("
    end, "expected a regular expression of PCRE2"},
    ["a pattern of a megabyte"] = {"qwen2", function(t)
      t.pre_tokenizer.pretokenizers[1].pattern.Regex = ("a"):rep(1 << 20)
    end, "expected a pattern of at most"},
    ["an intersection of classes"] = {"qwen2", function(t)
      t.pre_tokenizer.pretokenizers[1].pattern.Regex = "[a-z&&[^b]]"
    end, "an intersection within a class of characters is not supported"},
    ["a space that is several characters"] = {"metaspace", function(t)
      t.pre_tokenizer.replacement = "ab"
    end, "replacement: expected one character, got 'ab'"},
    ["a scheme against an older field"] = {"metaspace", function(t)
      t.pre_tokenizer.add_prefix_space, t.pre_tokenizer.prepend_scheme = false, "first"
    end, "prepend_scheme: expected never beside add_prefix_space = false, got 'first'"},
    ["a decoder's space that is none"] = {"t5", function(t) t.decoder.replacement = "" end,
      "decoder.replacement: expected one character, got ''"},
    ["a thousand steps"] = {"gpt2", function(t)
      local steps = json.list()
      for i = 1, 1000 do steps[i] = {type = "NFC"} end
      t.normalizer = {type = "Sequence", normalizers = steps}
    end, "normalizer: expected at most 100 steps, got 1001"},
    ["an unknown behaviour"] = {"qwen2", function(t)
      t.pre_tokenizer.pretokenizers[1].behavior = "Odd"
    end, "expected Isolated, Removed"},
    ["two texts in a template"] = {"t5", function(t)
      t.post_processor.single[2] = {Sequence = {id = "B"}}
    end, "single: expected one Sequence, got 2"},
    ["a template with unknown tokens"] = {"t5", function(t)
      t.post_processor.special_tokens = {}
    end, "special_tokens.</s>: expected a table, got none"},
    ["an added token without content"] = {"gpt2", function(t) t.added_tokens[1].content = nil end,
      "added_tokens[1].content: expected a string, got none"},
    ["an added token with the id of another token"] = {"gpt2", function(t)
      table.insert(t.added_tokens, {id = 5, content = "<new>"})
    end, "added_tokens[2].id: duplicate id 5: '&' and '<new>'"},
    ["two added tokens with one id"] = {"gpt2", function(t)
      table.insert(t.added_tokens, {id = 559, content = "<new>"})
    end, "added_tokens[2].id: duplicate id 559: '<|endoftext|>' and '<new>'"},
    ["an added token with an id above those of vocabularies"] = {"gpt2", function(t)
      t.added_tokens[1].content, t.added_tokens[1].id = "<new>", 1000000000000
    end, "added_tokens[1].id: expected an integer from 0 to 16777215, got 1000000000000"},
    ["a template with such an id"] = {"t5", function(t)
      t.post_processor.special_tokens["</s>"].ids = {1 << 24}
    end, "special_tokens: expected integers from 0 to 16777215 as ids of '</s>', got 16777216"},
    ["a pair with such an id"] = {"gpt2", function(t)
      t.post_processor = {type = "BertProcessing", sep = {"a", 1 << 24}, cls = {"b", 0}}
    end, "post_processor.sep: expected a text and an id from 0 to 16777215, got 16777216"},
    ["two post-processors that add tokens"] = {"t5", function(t)
      t.post_processor = {type = "Sequence", processors = {
        {type = "ByteLevel"}, t.post_processor,
        {type = "BertProcessing", sep = {"a", 1}, cls = {"b", 0}},
      }}
    end, "post_processor.processors[3]: expected one processor of a Sequence that adds tokens"},
  } do
    it(what, function()
      local message = refusal(row[1], row[2])
      assert.truthy(message:find(row[3], 1, true), message)
    end)
  end
  it("a text that is no JSON, a folder without the file, a file that is not there", function()
    for _, path in ipairs {golden .. "nothing", golden, "Makefile"} do
      local tokenizer, message = model.tokenizer(path)
      assert.is_nil(tokenizer)
      assert.truthy(message:find(path, 1, true), message)
    end
    assert.equal(2, select(3, model.tokenizer(golden .. "nothing"))) -- ENOENT
    expect.fails_with("path: expected a file's name", function() model.tokenizer(7) end)
  end)
end)

describe("a text with characters that have no token", function()
  it("is an error where no unknown token is named", function()
    local expected = "text: expected characters that have tokens, as the file names no unknown "
      .. "token, got '\u{732b}'"
    local t5 = changed("t5", function(t) t.model.unk_id = nil end)
    expect.fails_with(expected, function() t5:encode "a \u{732b}" end)
    assert.truthy(#t5:encode "a" > 0)
    local scored = require "attune.text.bpe".by_scores({a = 0, b = 1, ab = 2}, {0, 0, 1})
    assert.same({2}, scored "ab")
    expect.fails_with(expected, function() scored "a\u{732b}" end)
  end)
end)

describe("hostile rules", function()
  it("cannot make a text grow without end", function()
    local tokenizer = changed("gpt2", function(t)
      local steps = json.list()
      for i = 1, 10 do
        steps[i] = {type = "Replace", pattern = {String = "a"}, content = ("a"):rep(1000)}
      end
      t.normalizer = {type = "Sequence", normalizers = steps}
    end)
    expect.fails_with("text: the file's rules make it longer", function()
      tokenizer:encode "a"
    end)
  end)
  it("cannot match for ever", function()
    local tokenizer = changed("gpt2", function(t)
      t.pre_tokenizer = {type = "Split", behavior = "Isolated", invert = false,
        pattern = {Regex = "(?:(a+)+)+$"}}
    end)
    expect.fails_with("text: a pattern of the file needs too many steps", function()
      tokenizer:encode(("a"):rep(40) .. "!")
    end)
  end)
end)

describe("a GGUF file without a vocabulary", function()
  it("gives nil and a message", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write("GGUF", ("<I4I8I8"):pack(3, 0, 0), ("\0"):rep(64))
    file:close()
    local tokenizer, message = model.tokenizer(path)
    os.remove(path)
    assert.is_nil(tokenizer)
    assert.truthy(message:find(path, 1, true))
  end)
end)

describe("a GGUF vocabulary of T5", function()
  local charsmap = require "attune.text.charsmap"
  -- The golden tokenizer.json as the metadata that llama.cpp's conversion writes.
  local function metadata_of(spec)
    local tokens, scores, types = {}, {}, {}
    for i, pair in ipairs(spec.model.vocab) do
      tokens[i], scores[i], types[i] = pair[1], pair[2], 1
    end
    for _, token in ipairs(spec.added_tokens) do
      types[token.id + 1] = token.special and 3 or 4
    end
    local map = {charsmap.from_base64(spec.normalizer.precompiled_charsmap):byte(1, -1)}
    return {
      ["general.architecture"] = "t5", ["tokenizer.ggml.model"] = "t5",
      ["tokenizer.ggml.tokens"] = tokens, ["tokenizer.ggml.scores"] = scores,
      ["tokenizer.ggml.token_type"] = types, ["tokenizer.ggml.precompiled_charsmap"] = map,
      ["tokenizer.ggml.unknown_token_id"] = 2, ["tokenizer.ggml.eos_token_id"] = 1,
      ["tokenizer.ggml.add_space_prefix"] = true,
      ["tokenizer.ggml.remove_extra_whitespaces"] = true,
    }
  end
  it("gives the ids of the tokenizer.json that it comes from", function()
    local path = os.tmpname() .. ".gguf"
    local spec = json.decode(read(golden .. "t5/tokenizer.json"))
    assert(attune.save(path, {x = attune.ones {1}}, metadata_of(spec)))
    local tokenizer, why = model.tokenizer(path)
    os.remove(path)
    assert(tokenizer, why)
    for _, case in ipairs(cases_of "t5".texts) do
      assert.same(case.ids, {table.unpack(tokenizer:encode(case.text))}, case.text)
      assert.same(case.ids_with_special, tokenizer:encode(case.text, special), case.text)
      assert.same(case.decoded, tokenizer:decode(case.ids, special))
    end
  end)
end)

describe("canonical normalisation", function()
  it("composes, orders marks, and computes Hangul", function()
    for given, expected in pairs {
      ["e\u{301}"] = "\u{e9}", ["a\u{323}\u{307}"] = "\u{1ea1}\u{307}",
      ["a\u{307}\u{323}"] = "\u{1ea1}\u{307}", ["\u{1112}\u{1161}\u{11ab}"] = "\u{d55c}",
      ["\u{212b}"] = "\u{c5}", ["\u{958}"] = "\u{915}\u{93c}", ["\u{344}"] = "\u{308}\u{301}",
      ["a\u{301}\u{301}"] = "\u{e1}\u{301}", ["\u{301}"] = "\u{301}", [""] = "",
      ["a\u{328}\u{301}"] = "\u{105}\u{301}", ["\u{1100}\u{11a8}"] = "\u{1100}\u{11a8}",
    } do
      assert.equal(expected, nfc.compose(given))
      assert.equal(expected, nfc.compose(expected))
      assert.equal(expected, nfc.compose(nfc.decompose(given)))
    end
    assert.equal("\u{1112}\u{1161}\u{11ab}", nfc.decompose "\u{d55c}")
    local long = ("e\u{301}"):rep(1000)
    assert.equal(("\u{e9}"):rep(1000), nfc.compose(long))
  end)
  it("takes twice the steps for twice the marks", function()
    local function steps(n)
      local count, hook, mask, number = 0, debug.gethook()
      local text = "a" .. ("\u{316}\u{301}"):rep(n)
      debug.sethook(function() count = count + 1 end, "", 1000)
      local got = nfc.decompose(text)
      debug.sethook(hook, mask, number)
      assert.equal("a" .. ("\u{316}"):rep(n) .. ("\u{301}"):rep(n), got)
      return count
    end
    local few, more = steps(1000), steps(4000)
    assert.truthy(few > 20 and more < 5 * few, ("%d and %d"):format(few, more))
  end)
end)

describe("bytes that are no UTF-8", function()
  it("become one U+FFFD per longest beginning of a character", function()
    for given, expected in pairs {
      ["\x80"] = "?", ["a\xc2"] = "a?", ["\xe2\x82"] = "?", ["\xe2\x82\xff"] = "??",
      ["\xf0\x9f\x98\x80"] = "\u{1f600}", ["\xf0\x9f\x98a"] = "?a", ["\xed\xa0\x80"] = "???",
      ["\xc0\xaf"] = "??", ["\xf4\x90\x80\x80"] = "????", ["\xe0\x80\x80"] = "???", [""] = "",
    } do
      assert.equal((expected:gsub("%?", "\u{fffd}")), (utf.lossy(given)))
    end
  end)
  it("wait for more where a character may still end", function()
    assert.same({"a", "\xe2\x82"}, {utf.lossy("a\xe2\x82", true)})
    assert.same({"\u{fffd}", ""}, {utf.lossy("\xe2\xff", true):sub(1, 3), ""})
  end)
end)

it("attune.model is the module of models", function() assert.equal(model, attune.model) end)

describe("normalisation by compatibility and lower case", function()
  -- The expected texts are those of the package tokenizers 0.23.3.
  local given = "Ａｂ ﬁ½ ①ⅷ ﷺ e\u{301}ÉİΣΑΣ ǅ "
    .. "\u{a0}x\u{2003}y ｶﾞ 한 ﾡ ẛ̣ ΑΣ Å"
  it("gives what the tokenizers library gives", function()
    assert.same("Ab fi1\u{2044}2 1viii صلى الله عليه وسلم "
      .. "ÉÉI\u{307}ΣΑΣ D\u{17e}"
      .. "  x y ガ 한 ᄀ ṩ ΑΣ Å", (nfc.compose_compatible(given)
        :gsub("é", "É"):gsub("\u{130}", "I\u{307}")))
    assert.same(nfc.decompose(nfc.compose_compatible(given)), nfc.decompose_compatible(given))
    assert.same("ａｂ ﬁ½ ①ⅷ ﷺ e\u{301}éi\u{307}σασ ǆ "
      .. "\u{a0}x\u{2003}y ｶﾞ 한 ﾡ ẛ̣ ασ å",
      nfc.lower(given))
    assert.same("abc 1", nfc.lower "ABC 1")
    assert.same("plain", nfc.compose_compatible "plain")
  end)
  it("is a step of a tokenizer.json, within its limit of bytes", function()
    local normalizers = require "attune.text.normalizers"
    local normalise = normalizers.new({
      type = "Sequence", normalizers = {{type = "NFKC"}, {type = "Lowercase"}},
    }, "normalizer")
    assert.same("fi a", normalise("ﬁ Ａ", 100))
    assert.has_error(function() normalise("ﷺ", 20) end)
    assert.same("fi", normalizers.new({type = "NFKD"}, "normalizer")("ﬁ", 100))
  end)
end)
