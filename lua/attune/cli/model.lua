local files = require "attune.util.files"
local json = require "attune.util.json"
local model = require "attune.model"
local output = require "attune.cli.output"
local text = require "attune.util.text"

local command = {summary = "tell what a published model costs: parameters, cache, time per token"}

-- A converter of the value of a flag.
local function whole(flag)
  return function(s)
    local n = math.tointeger(tonumber(s))
    if n and n >= 1 then return n end
    return nil, ("%s: expected an integer of at least 1, got '%s'"):format(flag, text.printable(s))
  end
end

function command.options(parser)
  parser:argument("name", "a preset, such as falcon-7b; without a name the presets are listed")
    :args "?"
  parser:option("--on", "time and memory on HARDWARE: " ..
    table.concat(model.hardware_names(), ", ") .. " (this machine, measured now)")
    :argname "HARDWARE"
  local function size(flag, help) parser:option(flag, help):argname "N":convert(whole(flag)) end
  size("--context", "tokens in the cache (default: the model's context)")
  size("--batch", "sequences (default: 1)")
  size("--chips", "chips that share the weights and the cache (default: 1)")
  size("--window", "tokens of the window that the comparison tries (default: 4096, or a "
    .. "quarter of a context of at most 4096)")
  parser:option("--weights", "dtype of the weights (default: bf16)"):argname "DTYPE"
  parser:option("--cache", "dtype of the cache: f32, bf16, f16 or i8 (default: bf16)")
    :argname "DTYPE"
  parser:option("--sharding", "how chips share the cache: heads or batch (default: heads)")
    :argname "HOW"
  parser:option("--svg", "write the picture of the block to FILE"):argname "FILE"
  parser:flag("--json", "print everything as JSON; longest_context null: any context fits")
end

-- ---- small texts ------------------------------------------------------------------------------

-- 6921720704 as "6,921,720,704".
local function grouped(n)
  local digits = ("%d"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (digits:gsub("^,", ""))
end

local function bytes(n) return text.quantity(n, "B") end
local function seconds(x) return x < 120 and text.quantity(x, "s") or text.duration(x) end
local function tokens(n) return n == math.huge and "any" or grouped(n) end

local function print_table(columns, rows)
  for _, line in ipairs(text.columns(columns, rows)) do output.line("  " .. line) end
  output.line ""
end

local function attention_kind(cfg)
  if cfg.mla then return "MLA" end
  if cfg.kv_heads == cfg.heads then return "MHA" end
  return cfg.kv_heads == 1 and "MQA" or "GQA"
end

-- ---- the list of presets -----------------------------------------------------------------------

-- What the list says of each preset.
local function preset_records()
  local records = json.list()
  for i, name in ipairs(model.presets()) do
    local cfg = model.preset(name)
    records[i] = {
      name = name, parameters = cfg.parameters, layers = cfg.layers,
      encoder_layers = cfg.encoder_layers, d_model = cfg.d_model, heads = cfg.heads,
      head_dim = cfg.head_dim, kv_heads = not cfg.mla and cfg.kv_heads or nil,
      attention = attention_kind(cfg), position = cfg.position,
      bytes_per_token = cfg:kv_bytes {context = 1, source = 0},
    }
  end
  return records
end

-- The chips of the table: "this" is measured only where it is asked for.
local function chip_records()
  local records = json.list()
  for _, name in ipairs(model.hardware_names()) do
    if name ~= "this" then records[#records + 1] = model.hardware(name) end
  end
  return records
end

local function print_presets()
  local rows = {}
  for i, r in ipairs(preset_records()) do
    local layers = ("%d"):format(r.layers)
    if r.encoder_layers then layers = ("%d + %s"):format(r.encoder_layers, layers) end
    rows[i] = {
      r.name, grouped(r.parameters), layers, ("%d"):format(r.d_model),
      ("%d × %d"):format(r.heads, r.head_dim), r.kv_heads and ("%d"):format(r.kv_heads) or "MLA",
      r.position, ("%.4g KiB"):format(r.bytes_per_token / 1024),
    }
  end
  print_table({
    {"model"}, {"parameters", right = true}, {"layers", right = true}, {"d_model", right = true},
    {"heads", right = true}, {"kv heads", right = true}, {"position"},
    {"bf16 cache per token", right = true},
  }, rows)
  output.line "attune model NAME describes one. --on HARDWARE adds memory and time:"
  for _, chip in ipairs(chip_records()) do
    output.line(("  %s: %s, %.3g GB, %.3g TB/s, %.3g TFLOP/s in bf16 (%s)"):format(chip.name,
      chip.title, chip.memory / 1e9, chip.bandwidth / 1e12, chip.flops / 1e12, chip.source))
  end
  output.line "  this: this machine, measured when you ask"
end

-- ---- one model ---------------------------------------------------------------------------------

-- What is to be known about the numbers of a page.
local function warnings_of(cfg, sizes)
  local warnings = {}
  if cfg.position == "learned" and sizes.context > cfg.max_positions then
    warnings[1] = ("the model has learned positions for %s tokens, and cannot run with a context of"
      .. " %s"):format(grouped(cfg.max_positions), grouped(sizes.context))
  end
  return warnings
end

local function print_head(cfg, sizes)
  output.line(("%s: %s parameters"):format(cfg.name, grouped(cfg.parameters)))
  if cfg.experts then
    output.line(("of which a token uses %s"):format(grouped(cfg.active_parameters)))
  end
  output.line(cfg.source)
  if cfg.note then output.line("Note: " .. cfg.note) end
  for _, warning in ipairs(warnings_of(cfg, sizes)) do output.line("Warning: " .. warning) end
  output.line ""
end

local function print_parts(cfg, sizes)
  local list, rows, total = cfg:parts {context = sizes.context}, {}, cfg.parameters
  for i, part in ipairs(list) do
    rows[i] = {
      part.name, grouped(part.parameters), ("%.2f%%"):format(100 * part.parameters / total),
      grouped(part.flops),
    }
  end
  rows[#rows + 1] = {
    "all", grouped(total), "100%", grouped(cfg:flops {context = sizes.context}),
  }
  print_table({
    {"part"}, {"parameters", right = true}, {"share", right = true},
    {("FLOPs per token at context %d"):format(sizes.context), right = true},
  }, rows)
end

-- The bytes of one token with a kv head for each head; nil for latent attention.
local function bytes_of_mha(cfg, dtype)
  if cfg.mla then return nil end
  return cfg:with {kv_heads = cfg.heads}:kv_bytes {context = 1, source = 0, dtype = dtype}
end

local function print_cache(cfg, sizes)
  local one = cfg:kv_bytes {context = 1, source = 0, dtype = sizes.dtype}
  local line = ("Cache in %s: %s bytes per token (%s: %d layers"):format(sizes.dtype, grouped(one),
    attention_kind(cfg), cfg.layers)
  line = line .. (cfg.mla and ", a latent of %d numbers)" or ", k and v of %d × %d)"):format(
    cfg.mla and cfg.mla.kv_rank + cfg.mla.rope or cfg.kv_heads, cfg.head_dim)
  output.line(line)
  if not cfg.mla and cfg.kv_heads < cfg.heads then
    output.line(("with a kv head for each head: %s bytes, %.3g times as much"):format(
      grouped(bytes_of_mha(cfg, sizes.dtype)), cfg.heads / cfg.kv_heads))
  end
  if cfg.kind == "encoder-decoder" then
    output.line "and as much per token of the source, for cross-attention (below: a source as long)"
  end
  output.line(("At context %s, batch %d: %s. attune's own caches take %s."):format(
    grouped(sizes.context), sizes.batch, bytes(cfg:kv_bytes(sizes)),
    bytes(cfg:cache_bytes(sizes))))
  output.line ""
end

local function print_step(step, given, sizes)
  local chip = step.hardware
  output.line(("On %s%s: %s, %.4g GB/s, %.4g TFLOP/s"):format(
    given.chips and given.chips > 1 and given.chips .. " × " or "", chip.title,
    bytes(chip.memory), chip.bandwidth / 1e9, chip.flops / 1e12))
  output.line(("  (%s)"):format(chip.source))
  output.line(("Batch %d, context %s, weights in %s, cache in %s"):format(sizes.batch,
    grouped(sizes.context), given.weights or "bf16", sizes.dtype))
  output.line ""
  local memory = step.memory
  output.line(("  memory%s: weights %s + cache %s = %s of %s: %s"):format(
    given.chips and given.chips > 1 and " per chip" or "", bytes(memory.weights),
    bytes(memory.cache), bytes(memory.total), bytes(memory.available),
    step.fits and "fits" or "does not fit"))
  local room = "  beside the weights fit: batch %s at this context, context %s at this batch"
  output.line(room:format(grouped(step.max_batch), tokens(step.longest_context)))
  local time = "  a step, one token for every sequence: at least %s; at most %s tokens/s in all"
  output.line(time:format(seconds(step.seconds), text.quantity(step.tokens_per_second)))
  local prompt = "  the prompts before it, %s tokens each: at least %s"
  output.line(prompt:format(grouped(sizes.context), seconds(step.prompt_seconds)))
  output.line ""
  local rows = {}
  for i, part in ipairs(step.parts) do
    rows[i] = {
      part.name, bytes(part.bytes), text.quantity(part.flops, "FLOP"), seconds(part.seconds),
      ("%.1f%%"):format(100 * part.seconds / step.seconds), part.bound,
    }
  end
  print_table({
    {"part of a step"}, {"bytes read", right = true}, {"arithmetic", right = true},
    {"time", right = true}, {"share", right = true}, {"limited by"},
  }, rows)
end

local function print_variants(variants)
  local rows, first, notes = {}, variants[1].step, {}
  for i, v in ipairs(variants) do
    local mark = ""
    if v.note then
      if not notes[v.note] then
        notes[#notes + 1] = ("(%d) %s"):format(#notes + 1, v.note)
        notes[v.note] = #notes
      end
      mark = (" (%d)"):format(notes[v.note])
    end
    rows[i] = {
      v.name .. mark, grouped(v.config.parameters), bytes(v.kv_bytes),
      v.step.fits and "yes" or "no",
      grouped(v.step.max_batch), tokens(v.step.longest_context), seconds(v.step.seconds),
      ("%.2f"):format(v.step.seconds / first.seconds),
    }
  end
  output.line "What other attention would change:"
  print_table({
    {"attention"}, {"parameters", right = true}, {"cache", right = true}, {"fits"},
    {"max batch", right = true}, {"max context", right = true}, {"step", right = true},
    {"time ratio", right = true},
  }, rows)
  for _, note in ipairs(notes) do output.line("  " .. note) end
end

-- ---- JSON --------------------------------------------------------------------------------------

local function step_record(step)
  local record = {}
  for name, value in pairs(step) do record[name] = value end
  record.parts = json.list(step.parts)
  if step.longest_context == math.huge then record.longest_context = json.null end -- any
  return record
end

local function record_of(asked)
  local cfg, sizes, step, variants = asked.cfg, asked.sizes, asked.step, asked.variants
  local record = {config = {}, parts = json.list(cfg:parts {context = sizes.context})}
  for name, value in pairs(cfg) do record.config[name] = value end
  record.name, record.parameters = cfg.name, cfg.parameters
  record.warnings = json.list(warnings_of(cfg, sizes))
  record.active_parameters = cfg.active_parameters
  record.context, record.batch = sizes.context, sizes.batch
  record.flops_per_token = cfg:flops {context = sizes.context}
  record.cache = {
    dtype = sizes.dtype,
    bytes_per_token = cfg:kv_bytes {context = 1, source = 0, dtype = sizes.dtype},
    bytes_per_token_of_mha = bytes_of_mha(cfg, sizes.dtype),
    bytes = cfg:kv_bytes(sizes),
    attune_bytes = cfg:cache_bytes(sizes),
  }
  record.step = step and step_record(step)
  if variants then
    record.weights, record.chips = asked.given.weights or "bf16", asked.given.chips or 1
    record.sharding = record.chips > 1 and (asked.given.sharding or "heads") or nil
    record.variants = json.list()
    for i, v in ipairs(variants) do
      record.variants[i] = {
        name = v.name, kv_heads = v.config.kv_heads, window = v.config.window, cache = v.cache,
        parameters = v.config.parameters, kv_bytes = v.kv_bytes, note = v.note,
        step = step_record(v.step),
      }
    end
  end
  return record
end

-- ---- the command -------------------------------------------------------------------------------

local step_flags = {"chips", "window", "weights", "sharding"}
local model_flags = {"on", "context", "batch", "cache", "svg", table.unpack(step_flags)}

-- Flags that would do nothing are misuse.
local function check_flags(args)
  for _, flag in ipairs(args.name and {} or model_flags) do
    if args[flag] then error(("--%s: expected the NAME of a preset beside it"):format(flag), 0) end
  end
  for _, flag in ipairs(step_flags) do
    if args[flag] and not args.on then
      error(("--%s: expected --on HARDWARE beside it"):format(flag), 0)
    end
  end
  if args.sharding and (args.chips or 1) == 1 then
    error("--sharding: expected --chips of at least 2 beside it", 0)
  end
end

-- What the arguments ask for: {cfg, sizes, given, step, variants}. Raises on misuse.
local function compute(args)
  check_flags(args)
  if not args.name then return {} end
  local cfg = model.preset(args.name)
  local asked = {cfg = cfg, given = {}}
  asked.sizes = {
    context = args.context or cfg.context, batch = args.batch or 1, dtype = args.cache or "bf16",
  }
  cfg:kv_bytes(asked.sizes)
  if not args.on then return asked end
  local given = {
    hardware = model.hardware(args.on), context = asked.sizes.context, batch = asked.sizes.batch,
    cache = args.cache, weights = args.weights, chips = args.chips, sharding = args.sharding,
  }
  asked.step = cfg:decode(given)
  given.window = args.window
  asked.variants = cfg:variants(given)
  asked.given = given
  return asked
end

-- The flags of what messages of the library begin with.
local flag_of = {
  hardware = "--on", dtype = "--cache", cache = "--cache", context = "--context",
  batch = "--batch", chips = "--chips", window = "--window", weights = "--weights",
  sharding = "--sharding",
}

-- Messages of the library begin with the line of this file that called it.
local function misuse(message)
  message = message:gsub("^[^:]*model%.lua:%d+: ", "")
  local name = message:match "^(%l+): "
  if flag_of[name] then message = flag_of[name] .. message:sub(#name + 1) end
  output.complain("attune model", message)
  return 2
end

function command.run(args)
  local ok, asked = pcall(compute, args)
  if not ok then return misuse(tostring(asked)) end
  if not args.name then
    if args.json then
      output.line(json.encode {
        presets = model.presets(), hardware = model.hardware_names(), models = preset_records(),
        chips = chip_records(),
      })
    else
      print_presets()
    end
    return 0
  end
  if args.svg then
    local saved, why = files.save(args.svg, asked.cfg:svg())
    if not saved then
      output.complain("attune model", why)
      return 1
    end
  end
  if args.json then
    output.line(json.encode(record_of(asked)))
    return 0
  end
  print_head(asked.cfg, asked.sizes)
  output.write(asked.cfg:draw())
  output.line ""
  print_parts(asked.cfg, asked.sizes)
  print_cache(asked.cfg, asked.sizes)
  if asked.step then
    print_step(asked.step, asked.given, asked.sizes)
    print_variants(asked.variants)
  end
  return 0
end

return command
