--- What the pages of reports look like and do: one style and one script, which the pages' policy
--- names by their hashes, so that nothing else runs.
local base64 = require "attune.util.base64"
local core = require "attune.core"

local style = {}

style.css = [[
:root {
  color-scheme: light dark;
  --ink: #1d1d1f; --quiet: #5a5f66; --line: #dcdfe3; --ground: #fff; --soft: #f6f7f9;
  --good: #00704f; --bad: #b3261e; --open: #8a5a00; --link: #0059b3;
  --warned: #8a4a00; --rule: #555; --grid: #e4e4e4;
  --c1: #0072b2; --c2: #d55e00; --c3: #009e73; --c4: #cc79a7; --c5: #e69f00; --c6: #56b4e9;
  --c7: #000; --c8: #7f7f7f; --g1: #bdbdbd; --g2: #8c8c8c; --g4: #d9d9d9;
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: break-word;
}
main { max-width: 1060px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99em; }
.skip:focus { left: 1rem; top: .5rem; background: var(--ground); padding: .3rem .6rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; }
.about { font-size: 1.1rem; color: var(--quiet); margin: 0 0 1rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; }
.claims { list-style: none; padding: 0; margin: 1rem 0; }
.claims li {
  border-left: 4px solid var(--line); padding: .35rem .9rem; margin: .6rem 0;
  background: var(--soft);
}
.claims .held { border-color: var(--good); }
.claims .failed { border-color: var(--bad); }
.claims .undecided { border-color: var(--open); }
.verdict { font-weight: 650; margin-right: .5em; }
.held .verdict { color: var(--good); }
.failed .verdict { color: var(--bad); }
.undecided .verdict { color: var(--open); }
.detail { color: var(--quiet); font-size: .92rem; }
figure { margin: 1.6rem 0 2.2rem; }
figure svg {
  display: block; width: 100%; height: auto; background: var(--ground);
  border: 1px solid var(--line); border-radius: 6px;
}
.spots { fill: transparent; pointer-events: all; }
figcaption { color: var(--quiet); font-size: .92rem; margin-top: .5rem; }
.note { color: var(--open); font-size: .92rem; margin: .3rem 0 0; }
.scroll {
  overflow: auto; max-height: 34rem; border: 1px solid var(--line); border-radius: 6px;
}
table {
  border-collapse: collapse; font-size: .88rem; width: 100%; font-variant-numeric: tabular-nums;
}
caption { text-align: left; padding: .4rem .7rem; color: var(--quiet); }
th, td {
  padding: .34rem .7rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
thead th { position: sticky; top: 0; background: var(--soft); font-weight: 600; }
td.n, th.n { text-align: right; }
td.wide { white-space: normal; min-width: 14rem; }
th button {
  font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
}
th button::after { content: " \2195"; color: var(--quiet); }
th[aria-sort=ascending] button::after { content: " \2191"; color: var(--ink); }
th[aria-sort=descending] button::after { content: " \2193"; color: var(--ink); }
small { display: block; color: var(--quiet); font-size: .78rem; }
.facts { margin-bottom: 1.2rem; }
.facts th { font-weight: 500; color: var(--quiet); width: 11rem; vertical-align: top; }
.facts td, .facts th { white-space: normal; overflow-wrap: anywhere; }
pre {
  background: var(--soft); border: 1px solid var(--line); border-radius: 6px;
  padding: .8rem 1rem; overflow-x: auto; font-size: .86rem; max-height: 34rem; tab-size: 2;
}
@media (max-width: 600px) {
  main { padding: 1.2rem .9rem 3rem; }
  h1 { font-size: 1.5rem; }
  .facts th { width: auto; }
  .facts td, .facts th { display: block; border: 0; padding: .1rem .7rem; }
  .facts tr { display: block; padding: .35rem 0; border-bottom: 1px solid var(--line); }
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e8e8ea; --quiet: #a6abb3; --line: #3a3d42; --ground: #17181a; --soft: #212327;
    --good: #4cc38a; --bad: #ff8a80; --open: #f0b95a; --link: #7ab8ff;
    --warned: #f0b95a; --rule: #8a8f98; --grid: #33363b;
    --c1: #5ab4e5; --c2: #f08a4b; --c3: #3cc79a; --c4: #e29fc6; --c5: #f2bc3d; --c6: #9ad3f5;
    --c7: #e8e8ea; --c8: #9a9a9a; --g1: #5a5e66; --g2: #7c818a; --g4: #45484f;
  }
}
@media print {
  :root {
    color-scheme: light;
    --ink: #000; --quiet: #333; --line: #bbb; --ground: #fff; --soft: #fff;
    --good: #00543b; --bad: #8c1d18; --open: #6b4500; --link: #000;
    --warned: #6b3a00; --rule: #555; --grid: #e4e4e4;
    --c1: #0072b2; --c2: #d55e00; --c3: #009e73; --c4: #cc79a7; --c5: #e69f00; --c6: #56b4e9;
    --c7: #000; --c8: #7f7f7f; --g1: #bdbdbd; --g2: #8c8c8c; --g4: #d9d9d9;
  }
  main { max-width: none; padding: 0; }
  nav, .skip { display: none; }
  .scroll, pre { max-height: none; overflow: visible; }
  pre { white-space: pre-wrap; }
  thead th { position: static; }
  th, td { white-space: normal; padding: .2rem .4rem; }
  table { font-size: .72rem; }
  td { overflow-wrap: anywhere; }
  th button::after { content: none; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
}
]]

-- Sorting: the names of columns become buttons, so that without scripts nothing pretends to work.
-- data-v is a cell's number; a cell without a value stays last.
style.js = [[
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        if (head.classList.contains("n")) {
          return cell.dataset.v === undefined ? NaN : Number(cell.dataset.v);
        }
        return cell.textContent;
      };
      const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (typeof a === "string") return a < b ? -1 : a > b ? 1 : 0;
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return a - b;
      });
      if (down) {
        const missing = rows.filter(([a]) => Number.isNaN(a));
        const found = rows.filter(([a]) => !Number.isNaN(a)).reverse();
        rows.splice(0, rows.length, ...found, ...missing);
      }
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
]]

-- The hash of a source as a policy names it: base64 of the 32 bytes.
local function hash(source)
  local bytes = core._sha256(source):gsub("%x%x", function(hex)
    return string.char(tonumber(hex, 16))
  end)
  return ("'sha256-%s'"):format(base64(bytes))
end

--- The policy of a page: nothing is fetched, and nothing runs but the script above.
style.policy = ("default-src 'none'; style-src %s; script-src %s; base-uri 'none'; "
  .. "form-action 'none'"):format(hash(style.css), hash(style.js))

return style
