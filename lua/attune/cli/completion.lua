local commands = require "attune.cli.commands"
local output = require "attune.cli.output"
local text = require "attune.util.text"

local completion = {summary = "print completions for a shell: bash, zsh or fish"}

local shells = {bash = true, zsh = true, fish = true}

function completion.options(parser)
  parser:argument("shell", "bash, zsh or fish"):convert(function(word)
    if shells[word] then return word end
    return nil, ("shell: expected bash, zsh or fish, got '%s'"):format(word)
  end)
end

-- The long names of a command's options.
local function option_names(words)
  local names = {"--help"}
  for _, option in ipairs(words.options) do names[#names + 1] = option.names[#option.names] end
  return table.concat(names, " ")
end

local bash_head = [[
# bash completion for attune: source <(attune completion bash)
_attune() {
  local word=${COMP_WORDS[COMP_CWORD]} options=
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W '@COMMANDS@' -- "$word")
    return
  fi
  case ${COMP_WORDS[1]} in
]]
local bash_tail = [==[
  esac
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}
complete -F _attune attune
]==]

local function bash(list)
  local out = {(bash_head:gsub("@COMMANDS@", table.concat(commands.order, " ")))}
  for _, words in ipairs(list) do
    out[#out + 1] = ("    %s) options='%s' ;;\n"):format(words.name, option_names(words))
  end
  out[#out + 1] = bash_tail
  return table.concat(out)
end

-- A text in brackets or after a colon of _arguments.
local function zsh_text(s) return (s:gsub("[%[%]:\\]", "\\%0")) end

local function zsh(list)
  local out = {"#compdef attune\n# zsh completion for attune\n_attune() {\n  local -a commands\n",
    "  commands=(\n"}
  for _, words in ipairs(list) do
    local entry = ("%s:%s"):format(words.name, words.summary:gsub(":", "\\:"))
    out[#out + 1] = ("    %s\n"):format(text.shell_quote(entry))
  end
  out[#out + 1] = "  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n"
    .. "  fi\n  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n"
  for _, words in ipairs(list) do
    local parts = {"'--help[describe the command]'"}
    for _, option in ipairs(words.options) do
      local value = option.value and (":%s:_files"):format(zsh_text(option.value)) or ""
      local entry = ("%s[%s]%s"):format(option.names[#option.names], zsh_text(option.about), value)
      parts[#parts + 1] = text.shell_quote(entry)
    end
    parts[#parts + 1] = "'*:file:_files'"
    out[#out + 1] = ("    %s)\n      _arguments %s ;;\n"):format(words.name,
      table.concat(parts, " \\\n        "))
  end
  out[#out + 1] = "  esac\n}\n_attune \"$@\"\n"
  return table.concat(out)
end

local function fish_quote(s) return "'" .. s:gsub("[\\']", "\\%0") .. "'" end

local function fish(list)
  local out = {"# fish completion for attune\n"}
  for _, words in ipairs(list) do
    out[#out + 1] = ("complete -c attune -n __fish_use_subcommand -f -a %s -d %s\n"):format(
      words.name, fish_quote(words.summary))
    for _, option in ipairs(words.options) do
      out[#out + 1] = ("complete -c attune -n '__fish_seen_subcommand_from %s' -l %s%s -d %s\n")
        :format(words.name, option.names[#option.names]:gsub("^%-+", ""),
          option.value and " -r" or "", fish_quote(option.about))
    end
  end
  return table.concat(out)
end

local makers = {bash = bash, zsh = zsh, fish = fish}

function completion.run(args)
  local list = {}
  for i, name in ipairs(commands.order) do list[i] = commands.words(name) end
  output.write(makers[args.shell](list))
  return 0
end

return completion
