--- Texts for LaTeX.
local signs = {
  ["\\"] = "\\textbackslash{}", ["{"] = "\\{", ["}"] = "\\}", ["$"] = "\\$", ["&"] = "\\&",
  ["#"] = "\\#", ["_"] = "\\_", ["%"] = "\\%", ["~"] = "\\textasciitilde{}",
  ["^"] = "\\textasciicircum{}", ["<"] = "\\textless{}", [">"] = "\\textgreater{}",
  ["|"] = "\\textbar{}", ["`"] = "\\textasciigrave{}", ["'"] = "\\textquotesingle{}",
  ['"'] = "\\char34{}", ["−"] = "$-$", ["×"] = "$\\times$",
  ["µ"] = "$\\mu$", ["·"] = "$\\cdot$", ["■"] = "$\\blacksquare$", ["→"] = "$\\to$",
}

--- A text in which LaTeX reads no letter as a command.
---@param s string valid UTF-8
---@return string
return function(s)
  -- Two hyphens would become a dash.
  return (s:gsub("[\0-\x7F\xC2-\xF4][\x80-\xBF]*", signs):gsub("%-%-+", function(row)
    return ("-{}"):rep(#row - 1) .. "-"
  end))
end
