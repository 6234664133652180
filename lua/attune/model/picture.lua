--- A picture of a model's block, as text for a terminal and as SVG. Both draw one layout: boxes and
--- lines on a grid of character cells, x to the right, y down.
local parts = require "attune.model.parts"
local text = require "attune.util.text"

local picture = {}

-- ---- what the boxes say -----------------------------------------------------------------------

local activation_names = {
  relu = "ReLU", gelu = "GELU", gelu_tanh = "GELU (tanh)", silu = "SiLU",
  swiglu = "SiLU(gate) × up", geglu = "GELU(gate) × up",
  reglu = "ReLU(gate) × up", glu = "sigmoid(gate) × up",
}
local norm_names = {rmsnorm = "RMSNorm", layernorm = "LayerNorm"}
local rotation_names = {rope = "RoPE", rope2d = "2D RoPE", xpos = "xPos"}
local score_names = {alibi = "ALiBi added to the scores", t5 = "T5's table added to the scores"}

local function attention_line(cfg)
  local group = cfg.heads // cfg.kv_heads
  if cfg.mla then return ("attention, MLA: %d heads, one latent"):format(cfg.heads) end
  if cfg.kv_heads == 1 then return ("attention, MQA: %d heads share k, v"):format(cfg.heads) end
  if cfg.kv_heads == cfg.heads then return ("attention, MHA: %d heads"):format(cfg.heads) end
  if cfg.heads % cfg.kv_heads ~= 0 then
    return ("attention, %d heads over %d"):format(cfg.heads, cfg.kv_heads)
  end
  return ("attention, GQA: %d heads per k, v"):format(group)
end

local function attention_boxes(cfg, is_cross)
  local d, h, n = cfg.d_model, cfg.heads, cfg.head_dim
  local boxes, mla = {}, cfg.mla
  if mla then
    boxes[1] = {
      ("q: %d →%s %d × (%d + %d)"):format(d,
        mla.q_rank > 0 and (" %d →"):format(mla.q_rank) or "", h, mla.nope, mla.rope),
      ("latent of k, v: %d → %d + %d"):format(d, mla.kv_rank, mla.rope),
      ("k, v: %d → %d × (%d + %d)"):format(mla.kv_rank, h, mla.nope, mla.v),
    }
  else
    boxes[1] = {
      ("q: %d → %d × %d"):format(d, h, n),
      ("k, v: %s%d → %d × %d"):format(is_cross and "encoder's " or "", d, cfg.kv_heads, n),
    }
  end
  local inner = {}
  local rotation = not is_cross and rotation_names[cfg.position]
  if rotation then
    local dims = cfg.position == "rope" and cfg.rope and cfg.rope.dims or 0
    inner[1] = rotation .. (dims > 0 and (" on %d dims of q and k"):format(dims) or " on q and k")
  elseif not is_cross and score_names[cfg.position] then
    inner[1] = score_names[cfg.position]
  end
  inner[#inner + 1] = is_cross and ("cross-attention: %d heads"):format(h) or attention_line(cfg)
  if cfg.window and cfg.window > 0 and not is_cross then
    inner[#inner + 1] = ("window of %d tokens"):format(cfg.window)
  end
  boxes[2] = inner
  boxes[3] = {("o: %d → %d"):format(mla and h * mla.v or h * n, d)}
  return boxes
end

local function mlp_boxes(cfg)
  local d, e = cfg.d_model, cfg.experts
  if e then
    return {
      {("router: %d of %d experts"):format(e.chosen, e.routed)},
      {
        ("each: %d → %d → %d"):format(d, e.d_ff, d), activation_names[cfg.mlp],
        e.shared > 0 and ("%d more always"):format(e.shared) or nil,
      },
    }
  end
  local first = parts.gated[cfg.mlp] and "gate, up" or "up"
  return {
    {("%s: %d → %d"):format(first, d, cfg.d_ff)}, {activation_names[cfg.mlp]},
    {("down: %d → %d"):format(cfg.d_ff, d)},
  }
end

-- The residual branches of one layer, in order. A branch: {norms, columns}: one norm for each
-- column, or one for all; each column is a list of boxes.
local function branches(cfg)
  local norm = norm_names[cfg.norm]
  local attention, mlp = attention_boxes(cfg), mlp_boxes(cfg)
  if cfg.block == "parallel" then
    local norms = cfg.shared_norm and {norm} or {norm .. " 1", norm .. " 2"}
    return {{norms = norms, columns = {attention, mlp}}}
  end
  local list = {{norms = {norm}, columns = {attention}}}
  if cfg.kind == "encoder-decoder" then
    list[2] = {norms = {norm}, columns = {attention_boxes(cfg, true)}}
  end
  list[#list + 1] = {norms = {norm}, columns = {mlp}}
  return list
end

-- ---- layout -----------------------------------------------------------------------------------

local function length(s) return utf8.len(s) end

-- The inner width of the widest box of each column, over all branches.
local function widths_of(list)
  local widths = {}
  for _, branch in ipairs(list) do
    for c, column in ipairs(branch.columns) do
      for _, box in ipairs(column) do
        for _, line in ipairs(box) do
          widths[c] = math.max(widths[c] or 18, length(line) + 2)
        end
      end
    end
  end
  return widths
end

-- Boxes {x, y, width, height, lines} and lines {x1, y1, x2, y2}; texts {x, y, text}.
local Layout = {}
Layout.__index = Layout

function Layout:box(centre, y, lines, width)
  local x = centre - width // 2 - 1
  table.insert(self.boxes, {x = x, y = y, width = width + 2, height = #lines + 2, lines = lines})
  return y + #lines + 1
end

function Layout:line(x1, y1, x2, y2)
  table.insert(self.lines, {x1 = x1, y1 = y1, x2 = x2, y2 = y2})
end

function Layout:text(x, y, s) table.insert(self.texts, {x = x, y = y, text = s}) end

-- A column of boxes from y, joined by lines. Returns the row of the last border.
function Layout:column(centre, y, boxes, width)
  for i, lines in ipairs(boxes) do
    if i > 1 then
      self:line(centre, y, centre, y + 2)
      y = y + 2
    end
    y = self:box(centre, y, lines, width)
  end
  return y
end

-- One branch from row y of the trunk. Returns the row of the sum.
function Layout:branch(branch, y, widths)
  local trunk, centres, top = self.trunk, self.centres, y + 2
  self:line(trunk, y, self.right, y)
  local shared = #branch.norms == 1
  self:line(trunk, y, trunk, shared and top or top - 1)
  if shared then
    local bottom = self:box(trunk, top, branch.norms, math.max(widths[1], 18))
    top = bottom + 2
    self:line(trunk, bottom, trunk, #branch.columns > 1 and bottom + 1 or top)
    if #branch.columns > 1 then self:line(centres[1], bottom + 1, centres[2], bottom + 1) end
  else
    self:line(centres[1], y + 1, centres[2], y + 1)
  end
  local bottoms, lowest = {}, 0
  for c, column in ipairs(branch.columns) do
    local centre, from = centres[c], top
    if #branch.columns > 1 then self:line(centre, top - 1, centre, top) end
    if not shared then
      local bottom = self:box(centre, top, {branch.norms[c]}, widths[c])
      self:line(centre, bottom, centre, bottom + 2)
      from = bottom + 2
    end
    bottoms[c] = self:column(centre, from, column, widths[c])
    lowest = math.max(lowest, bottoms[c])
  end
  local sum = lowest + 2
  for c in ipairs(branch.columns) do
    local down = #branch.columns > 1 and lowest + 1 or sum
    self:line(centres[c], bottoms[c], centres[c], down)
  end
  if #branch.columns > 1 then
    self:line(centres[1], lowest + 1, centres[2], lowest + 1)
    self:line(trunk, lowest + 1, trunk, sum)
  end
  self:line(self.right, y, self.right, sum)
  self:line(trunk, sum, self.right, sum)
  table.insert(self.sums, {x = trunk, y = sum})
  return sum
end

-- What is said of the layers, to the right of the first one from row y on.
function Layout:beside(cfg, y)
  local lines = {text.count(cfg.layers, "layer")}
  if cfg.kind == "encoder-decoder" then
    lines[2] = ("of the decoder; %d of the"):format(cfg.encoder_layers)
    lines[3] = "encoder lack cross-attention"
  elseif cfg.experts and cfg.experts.dense_layers > 0 then
    lines[2] = ("the first %d without experts:"):format(cfg.experts.dense_layers)
    lines[3] = ("MLP %d → %d → %d"):format(cfg.d_model, cfg.d_ff, cfg.d_model)
  end
  for i, line in ipairs(lines) do self:text(self.right + 2, y + i - 1, line) end
end

local function embedding_lines(cfg)
  local lines = {("embedding: %d × %d"):format(cfg.vocab, cfg.d_model)}
  if cfg.position == "learned" then
    lines[2] = ("+ positions: %d × %d"):format(cfg.max_positions, cfg.d_model)
  elseif cfg.position == "sinusoidal" then
    lines[2] = "+ sinusoidal positions"
  end
  return lines
end

local function layout_of(cfg)
  local list = branches(cfg)
  local widths = widths_of(list)
  local first = widths[1] // 2 + 2
  local layout = setmetatable({boxes = {}, lines = {}, texts = {}, sums = {}}, Layout)
  layout.centres = {first}
  local edge = first + widths[1] // 2 + 1
  if widths[2] then
    layout.centres[2] = edge + 3 + widths[2] // 2
    edge = layout.centres[2] + widths[2] // 2 + 1
  end
  layout.trunk = widths[2] and (first + layout.centres[2]) // 2 or first
  layout.right = edge + 3
  local width = math.max(widths[1], 26)
  local bottom = layout:box(layout.trunk, 0, embedding_lines(cfg), width)
  local y = bottom + 2
  layout:line(layout.trunk, bottom, layout.trunk, y)
  layout:beside(cfg, y + 1)
  for _, branch in ipairs(list) do
    y = layout:branch(branch, y, widths)
    layout:line(layout.trunk, y, layout.trunk, y + 1)
    y = y + 1
  end
  layout:line(layout.trunk, y, layout.trunk, y + 1)
  bottom = layout:box(layout.trunk, y + 1, {norm_names[cfg.norm]}, width)
  layout:line(layout.trunk, bottom, layout.trunk, bottom + 2)
  local head = ("head: %d → %d%s"):format(cfg.d_model, cfg.vocab, cfg.tied and ", tied" or "")
  width = math.max(width, length(head) + 2)
  layout.height = layout:box(layout.trunk, bottom + 2, {head}, width) + 1
  return layout
end

-- ---- text -------------------------------------------------------------------------------------

-- Bits of the directions in which a cell's lines leave it.
local up, down, left, right = 1, 2, 4, 8
local strokes = {
  [up] = "│", [down] = "│", [up | down] = "│", [left] = "─", [right] = "─", [left | right] = "─",
  [down | right] = "┌", [down | left] = "┐", [up | right] = "└", [up | left] = "┘",
  [up | down | right] = "├", [up | down | left] = "┤", [down | left | right] = "┬",
  [up | left | right] = "┴", [up | down | left | right] = "┼",
}

local function stroke(cells, x1, y1, x2, y2)
  local function add(x, y, bits)
    cells[y] = cells[y] or {}
    local before = cells[y][x]
    cells[y][x] = (math.type(before) and before or 0) | bits
  end
  for x = math.min(x1, x2), math.max(x1, x2) - 1 do
    add(x, y1, right)
    add(x + 1, y1, left)
  end
  for y = math.min(y1, y2), math.max(y1, y2) - 1 do
    add(x1, y, down)
    add(x1, y + 1, up)
  end
end

local function write(cells, x, y, s)
  cells[y] = cells[y] or {}
  for _, code in utf8.codes(s) do
    cells[y][x] = utf8.char(code)
    x = x + 1
  end
end

--- The picture as lines of text.
---@param cfg table a checked configuration
---@return string
function picture.text(cfg)
  local layout, cells = layout_of(cfg), {}
  for _, l in ipairs(layout.lines) do stroke(cells, l.x1, l.y1, l.x2, l.y2) end
  for _, b in ipairs(layout.boxes) do
    local x2, y2 = b.x + b.width - 1, b.y + b.height - 1
    stroke(cells, b.x, b.y, x2, b.y)
    stroke(cells, b.x, y2, x2, y2)
    stroke(cells, b.x, b.y, b.x, y2)
    stroke(cells, x2, b.y, x2, y2)
    for i, line in ipairs(b.lines) do
      write(cells, b.x + (b.width - length(line)) // 2, b.y + i, line)
    end
  end
  for _, t in ipairs(layout.texts) do write(cells, t.x, t.y, t.text) end
  for _, s in ipairs(layout.sums) do write(cells, s.x, s.y, "⊕") end
  local rows = {}
  for y = 0, layout.height - 1 do
    local row, last = {}, -1
    for x in pairs(cells[y] or {}) do last = math.max(last, x) end
    for x = 0, last do
      local cell = cells[y][x]
      row[#row + 1] = math.type(cell) and strokes[cell] or cell or " "
    end
    rows[#rows + 1] = table.concat(row)
  end
  return table.concat(rows, "\n") .. "\n"
end

-- ---- SVG --------------------------------------------------------------------------------------

local cell_width, cell_height, margin = 8, 18, 16

-- The colour of a box by what it does.
local function fill_of(line)
  if line:find "attention" then return "#CFE3F1" end
  if line:find "Norm" then return "#F4F4F4" end
  return "#FFFFFF"
end

--- The picture as SVG.
---@param cfg table a checked configuration
---@return string
function picture.svg(cfg)
  local layout, out = layout_of(cfg), {}
  local widest = layout.right
  for _, t in ipairs(layout.texts) do widest = math.max(widest, t.x + length(t.text)) end
  local title = ("%s: one block of %d"):format(cfg.name or "model", cfg.layers)
  local function px(x) return margin + (x + 0.5) * cell_width end
  local function py(y) return margin + 24 + (y + 0.5) * cell_height end
  local function add(form, ...) out[#out + 1] = form:format(...) end
  local width, height = 2 * margin + (widest + 1) * cell_width, py(layout.height) + margin
  add('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" '
    .. 'font-family="DejaVu Sans, sans-serif" font-size="12" text-anchor="middle" fill="#222222">',
    width, height, width, height)
  add('<title>%s</title>', text.xml(title))
  add('<rect width="100%%" height="100%%" fill="#FFFFFF"/>')
  add('<text x="%d" y="%d" text-anchor="start" font-size="15">%s</text>', margin, margin + 8,
    text.xml(title))
  for _, l in ipairs(layout.lines) do
    add('<line x1="%.0f" y1="%.0f" x2="%.0f" y2="%.0f" stroke="#777777" stroke-width="1.5"/>',
      px(l.x1), py(l.y1), px(l.x2), py(l.y2))
  end
  for _, b in ipairs(layout.boxes) do
    add('<rect x="%.0f" y="%.0f" width="%d" height="%d" rx="4" fill="%s" stroke="#333333"/>',
      px(b.x), py(b.y), (b.width - 1) * cell_width, (b.height - 1) * cell_height,
      fill_of(table.concat(b.lines, " ")))
    for i, line in ipairs(b.lines) do
      add('<text x="%.0f" y="%.0f">%s</text>', px(b.x + (b.width - 1) / 2), py(b.y + i) + 4,
        text.xml(line))
    end
  end
  for _, s in ipairs(layout.sums) do
    add('<circle cx="%.0f" cy="%.0f" r="8" fill="#FFFFFF" stroke="#333333"/>', px(s.x), py(s.y))
    add('<path d="M%.0f %.0fh10m-5 -5v10" stroke="#333333"/>', px(s.x) - 5, py(s.y))
  end
  for _, t in ipairs(layout.texts) do
    add('<text x="%.0f" y="%.0f" text-anchor="start">%s</text>', px(t.x), py(t.y) + 4,
      text.xml(t.text))
  end
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

return picture
