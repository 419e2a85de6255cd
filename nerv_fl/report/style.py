"""The page's style sheet: text because Flower bundles no other kind of file. Light and dark, screen and paper."""

from typing import Final

STYLE: Final = """
:root {
  --paper: #fcfcfa; --ink: #1c2126; --soft: #59636d; --line: #e3e4e0; --grid: #ecedea; --raised: #f3f4f0;
  --main: #0b6b62; --second: #3f63b8; --faint: #8b96a1; --bad: #b23c17; --good: #0b6b62; --warn: #8a5a00;
  --good-ground: #e0efec; --bad-ground: #f9e6de; --warn-ground: #f8edd3;
  --stack-0: #0b6b62; --stack-1: #9ccbbf; --stack-2: #3f63b8; --stack-3: #a9bbe6; --stack-4: #d0863c;
  --stack-5: #efd3a7;
  --stack-6: #c3c8cc;
  color-scheme: light dark;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14181b; --ink: #e7eaec; --soft: #9da8b2; --line: #2c3338; --grid: #22282c; --raised: #1c2125;
    --main: #56c3b3; --second: #8fabf3; --faint: #76828d; --bad: #f0906a; --good: #56c3b3; --warn: #e3b452;
    --good-ground: #17332f; --bad-ground: #3d241a; --warn-ground: #362c14;
    --stack-0: #3aa597; --stack-1: #1f5c54; --stack-2: #7f9ded; --stack-3: #3d5290; --stack-4: #dd9650;
  --stack-5: #7b5529;
    --stack-6: #4a535a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1140px; margin: 0 auto; padding: 56px 32px 96px; }
h1, h2, p, dl, dd, ol, ul, figure, pre { margin: 0; padding: 0; }
ol, ul { list-style: none; }
b { font-weight: 650; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

/* Head */
.top { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; justify-content: space-between; }
.eyebrow { color: var(--soft); font-size: 14px; }
h1 { margin-top: 18px; font-size: clamp(34px, 6vw, 54px); line-height: 1.08; letter-spacing: -0.025em;
  font-weight: 680;
  overflow-wrap: anywhere; }
h1 small { margin-left: 0.5em; font-size: 0.38em; font-weight: 450; letter-spacing: 0; color: var(--soft);
  white-space: nowrap; }
.verdict { margin-top: 20px; max-width: 50em; font-size: clamp(17px, 2vw, 20px); line-height: 1.5;
  color: var(--soft); }
.verdict b { color: var(--ink); white-space: nowrap; }
.strip { display: flex; flex-wrap: wrap; gap: 3px; margin-top: 28px; }
.strip li { flex: 1 1 4px; height: 26px; border-radius: 3px; background: var(--good); }
.strip li.rejected { background: var(--bad-ground); box-shadow: inset 0 0 0 1.5px var(--bad); }
.strip li.missing { background: none; box-shadow: inset 0 0 0 1.5px var(--line); }
header > .note { margin-top: 20px; }
.final { display: grid; grid-template-columns: 1.7fr 1fr; gap: 16px 48px; align-items: center; margin-top: 28px;
  padding: 24px 28px; background: var(--raised); border-radius: 10px; }
.final h2 { font-size: 16px; letter-spacing: 0; }
.final p { margin-top: 6px; font-size: 15px; color: var(--soft); }
.final p b { color: var(--ink); }
.final .plot { padding: 0 16px 40px; }

/* Tiles */
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 28px 24px;
  margin-top: 44px; }
.tiles > div { padding-top: 12px; border-top: 1px solid var(--line); }
.tiles dt { font-size: 14px; color: var(--soft); }
.tiles dd { margin-top: 2px; font-size: 29px; line-height: 1.2; letter-spacing: -0.015em; font-weight: 620; }
.tiles dd.note { font-size: 14px; line-height: 1.4; letter-spacing: 0; font-weight: 400; }

/* Sections */
section { display: grid; grid-template-columns: 268px minmax(0, 1fr); gap: 28px 52px; margin-top: 72px;
  padding-top: 28px;
  border-top: 1px solid var(--line); }
section.wide { grid-template-columns: minmax(0, 1fr); }
h2 { font-size: 24px; line-height: 1.25; letter-spacing: -0.015em; font-weight: 650; }
.prose { align-self: start; position: sticky; top: 28px; }
section.wide .prose { position: static; columns: 2 340px; column-gap: 52px; }
section.wide h2 { column-span: all; margin-bottom: 12px; }
section.wide .prose p { margin: 0 0 12px; break-inside: avoid; }
.prose p { margin-top: 12px; max-width: 68ch; font-size: 15px; color: var(--soft); }
.prose p b { color: var(--ink); }
.nowrap { white-space: nowrap; }
.figures { display: grid; align-self: start; grid-template-columns: minmax(0, 1fr); gap: 36px; }
.multiples { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 32px 28px; }
figcaption { display: flex; flex-wrap: wrap; gap: 0 10px; align-items: baseline; margin-bottom: 14px;
  font-size: 15px; }
figcaption .name { font-weight: 620; }
figcaption .unit, .note, .empty { font-size: 13.5px; color: var(--soft); }
figure > .note { margin-top: 10px; }
.empty { padding: 28px; text-align: center; background: var(--raised); border-radius: 10px; }

/* Charts */
.plot { padding: 4px 118px 42px 58px; }
.multiples .plot { padding-right: 58px; }
.multiples .plot.named { padding-right: 104px; }
.plot.columns { padding-right: 0; }
.plot.rows { padding: 0 12px 42px 68px; }
.plot.bars { padding: 0 0 42px 0; }
.pair { display: grid; grid-template-columns: 1.9fr 1fr; gap: 20px; }
svg { display: block; overflow: visible; }
svg text { font-size: 12.5px; fill: var(--soft); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--grid); } .axis { stroke: var(--faint); }
.line line { stroke-width: 2; stroke-linecap: round; }
.main line { stroke: var(--main); } .main circle { fill: var(--main); } svg .end-label.main { fill: var(--main);
  font-weight: 620; }
.second line { stroke: var(--second); } .second circle { fill: var(--second); }
svg .end-label.second { fill: var(--second); }
.faint line { stroke: var(--faint); stroke-width: 1.4; } .faint circle { fill: var(--faint); r: 1.6px; }
.line circle.rejected { fill: var(--paper); stroke: var(--bad); stroke-width: 1.8; r: 3.4px; }
.rule { stroke: var(--faint); stroke-width: 1.4; stroke-dasharray: 5 4; }
.rule.bound { stroke: var(--bad); } svg .end-label.bound { fill: var(--bad); }
.band { stroke: var(--main); stroke-width: 7; stroke-opacity: 0.14; }
.whisker { stroke: var(--faint); stroke-width: 1.8; stroke-linecap: round; } .dot { fill: var(--faint); }
.good .whisker { stroke: var(--main); } .good .dot { fill: var(--main); }
.bad .whisker, .flagged .whisker { stroke: var(--bad); } .bad .dot, .flagged .dot { fill: var(--bad); }
.bar { fill: var(--main); }
.hit { fill: transparent; } .hit:hover { fill: var(--ink); fill-opacity: 0.06; }
.stack-0 { --c: var(--stack-0); } .stack-1 { --c: var(--stack-1); } .stack-2 { --c: var(--stack-2); }
.stack-3 { --c: var(--stack-3); } .stack-4 { --c: var(--stack-4); } .stack-5 { --c: var(--stack-5); }
.stack-6 { --c: var(--stack-6); }
.stack { fill: var(--c); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-bottom: 16px; font-size: 13.5px; color: var(--soft); }
.legend i { display: inline-block; width: 11px; height: 11px; margin-right: 7px; border-radius: 2px;
  background: var(--c); }
#tip { position: fixed; z-index: 2; top: 0; left: 0; max-width: 280px; padding: 8px 11px; border-radius: 6px;
  font-size: 13px;
  line-height: 1.45; white-space: pre-line; pointer-events: none; background: var(--ink); color: var(--paper); }

/* Tables */
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--second); outline-offset: 4px; }
table { width: 100%; border-collapse: collapse; font-size: 13.5px; }
caption { padding-bottom: 10px; text-align: left; font-size: 15px; font-weight: 620; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--grid); text-align: right; vertical-align: top;
  white-space: nowrap; }
thead th { border-bottom-color: var(--line); font-weight: 500; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 500; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
.label, .text { text-align: left; }
tbody tr:hover { background: var(--raised); }
th button { padding: 0; border: 0; background: none; font: inherit; color: inherit; text-align: inherit;
  cursor: pointer; }
th button:hover { color: var(--ink); }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
.reason { display: block; min-width: 13em; max-width: 18em; margin-top: 4px; white-space: normal; font-size: 12.5px;
  line-height: 1.35; color: var(--soft); }
.words { display: block; min-width: 20em; max-width: 72ch; white-space: normal; overflow-wrap: anywhere; }
.chip { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: 12.5px; font-weight: 550;
  white-space: nowrap; }
.chip.good { background: var(--good-ground); color: var(--good); } .chip.bad { background: var(--bad-ground);
  color: var(--bad); }
.alert { margin-top: 22px; padding: 14px 20px; border-radius: 10px; }
.alert.bad { background: var(--bad-ground); color: var(--bad); }
.alert.warn { background: var(--warn-ground); color: var(--warn); }
.alert p { max-width: 92ch; font-size: 16px; line-height: 1.5; overflow-wrap: anywhere; }
.alert p + p { margin-top: 6px; }
.chip.warn { background: var(--warn-ground); color: var(--warn); } .chip.quiet { background: var(--raised);
  color: var(--soft); }
details { margin-top: 16px; } summary { cursor: pointer; font-size: 14px; color: var(--soft); }
details .scroll { margin-top: 14px; }

/* Facts */
.facts > div { display: grid; grid-template-columns: 210px minmax(0, 1fr); gap: 4px 24px; padding: 9px 0;
  border-bottom: 1px solid var(--grid); }
.facts dt { font-size: 14px; font-weight: 550; overflow-wrap: anywhere; } .facts dd { font-size: 14px;
  color: var(--soft); overflow-wrap: anywhere; }
pre, .code dd { font: 13px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { padding: 16px 18px; overflow-x: auto; background: var(--raised); border-radius: 8px; }
pre span { color: var(--soft); }

@media (max-width: 900px) {
  section { grid-template-columns: minmax(0, 1fr); gap: 24px; margin-top: 56px; }
  .prose { position: static; }
  .final { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 560px) {
  main { padding: 28px 18px 64px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 22px 18px; margin-top: 32px; }
  .tiles dd { font-size: 23px; }
  .strip { gap: 2px; } .strip li { flex-basis: 3px; } .final { padding: 20px; }
  .multiples { grid-template-columns: minmax(0, 1fr); }
  .plot, .multiples .plot { padding-right: 58px; padding-left: 50px; }
  .plot.columns { padding-right: 0; }
  .plot.named, .multiples .plot.named { padding-right: 100px; } svg .end-label { font-size: 11.5px; }
  .pair { grid-template-columns: 1.4fr 1fr; gap: 8px; } .plot.rows { padding-left: 58px; }
  .rows .minor { display: none; }
  .facts > div { grid-template-columns: minmax(0, 1fr); }
}
@media print {
  :root { --paper: #fff; }
  body { font-size: 12px; } main { max-width: none; padding: 0; }
  section { grid-template-columns: minmax(0, 1fr); margin-top: 32px; }
figure, tr, .final, .tiles > div { break-inside: avoid; }
  h2 { break-after: avoid; } .scroll { overflow: visible; } table { font-size: 10px; } th, td { padding: 4px 5px;
  } #tip { display: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
