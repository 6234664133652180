--- Themes: what a figure's layout depends on. Colours of gnuplot's strokes are in plots/theme.gp.
local look = {}

---@class attune.Look
---@field name "screen"|"print"|"dark"|"slides"
---@field width number factor of the width of a figure: in a smaller figure letters are larger
---@field pixels {light: integer[], accent: integer[], below: integer[]} red, green and blue

local blue, orange = {0x00, 0x72, 0xB2}, {0xD5, 0x5E, 0x00}
local on_white = {light = {0xE9, 0xEE, 0xF3}, accent = blue, below = orange}
local on_black = {
  light = {0x2A, 0x2D, 0x33}, accent = {0x5A, 0xB4, 0xE5}, below = {0xF0, 0x8A, 0x4B},
}

local themes = {
  screen = {name = "screen", width = 1, pixels = on_white},
  print = {name = "print", width = 1, pixels = on_white},
  dark = {name = "dark", width = 1, pixels = on_black},
  slides = {name = "slides", width = 0.78, pixels = on_white},
}

look.names = {"screen", "print", "dark", "slides"}

--- A theme by its name.
---@param name string? "screen" without one
---@return attune.Look? look nil for an unknown name
function look.of(name) return themes[name or "screen"] end

return look
