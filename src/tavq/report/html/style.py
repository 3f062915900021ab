"""The style sheet of every page: system fonts, one column on a phone, no page breaks inside cards when printed."""

STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --paper: #ffffff; --wash: #f5f7f9;
  --accent: #0072B2; --good: #d9f0e6; --warn: #fff4d6; --alarm: #C1121F; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 52px 0 6px; padding-bottom: 6px; border-bottom: 1px solid var(--line); }
h3 { font-size: 16px; margin: 0; }
p { margin: 6px 0 14px; max-width: 78ch; }
.lead { font-size: 18px; color: var(--soft); margin: 0 0 22px; }
.note, figcaption { color: var(--soft); font-size: 14px; }
.warning { background: var(--warn); border-left: 4px solid #c98a00; padding: 10px 14px; margin: 10px 0;
  max-width: none; }
.alarmed { background: #fdecee; border-left: 4px solid var(--alarm); padding: 10px 14px; margin: 10px 0;
  max-width: none; }
nav { font-size: 14px; margin: 0 0 8px; }
nav a { color: var(--accent); margin-right: 16px; text-decoration: none; white-space: nowrap; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 10px; margin: 0 0 14px; }
.fact { background: var(--wash); border-radius: 8px; padding: 10px 14px; overflow-wrap: anywhere; }
.fact b { display: block; font-size: 18px; font-weight: 600; line-height: 1.35; }
.fact span { color: var(--soft); font-size: 13px; line-height: 1.4; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 15px; margin: 8px 0 16px; }
th, td { text-align: left; vertical-align: top; padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { min-width: 210px; }
thead th { color: var(--soft); font-size: 13px; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding-left: 12px; }
td.best { background: var(--good); font-weight: 600; }
td.meaning { color: var(--soft); font-size: 14px; min-width: 240px; }
td.setting { overflow-wrap: anywhere;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 13px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 22px 34px; }
.chart { width: 100%; height: auto; overflow: visible; font-family: inherit; }
.chart .title { font-size: 14px; font-weight: 600; fill: var(--ink); }
.chart .tick { font-size: 11.5px; fill: var(--soft); }
.chart .legend { font-size: 12.5px; fill: var(--ink); }
.chart .cells { font-size: 11px; fill: var(--ink); }
.chart .grid { stroke: #e7ebef; }
.chart .axis { stroke: #8c959f; }
.chart .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.chart .alarm { stroke: var(--alarm); stroke-width: 1; opacity: 0.55; }
img { image-rendering: pixelated; display: block; border-radius: 3px; max-width: 100%; height: auto;
  background: #eceff2; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 18px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; margin: 0; break-inside: avoid; }
.pair img { width: 100%; }
.pair figcaption { grid-column: 1 / -1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  font-size: 12px; }
.rows { display: grid; gap: 18px 22px; grid-template-columns: repeat(auto-fill, minmax(min(520px, 100%), 1fr)); }
.rows.wide { grid-template-columns: 1fr; }
.row { display: grid; grid-auto-columns: minmax(0, 1fr); grid-auto-flow: column; gap: 8px; margin: 0;
  break-inside: avoid; }
.row img { width: 100%; }
.row figure { margin: 0; }
.row figcaption { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: 12px; }
.rows > figure { margin: 0; break-inside: avoid; }
.said { font-size: 13px; line-height: 1.4; margin-top: 4px; overflow-wrap: anywhere; }
.named { font-size: 12px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.sheet { margin: 0 0 22px; } .sheet img { width: 100%; max-width: 720px; }
thead th.number { white-space: normal; vertical-align: bottom; }
.ends { display: block; color: var(--soft); font-size: 11.5px; font-weight: 400; }
.answered { display: grid; grid-template-columns: minmax(96px, 30%) 1fr; gap: 14px; align-items: start;
  break-inside: avoid; }
.answered.wide { grid-template-columns: 1fr; gap: 4px; }
.answered.uneven .row { grid-template-columns: 1fr 2fr; }
th i { font-weight: 400; color: var(--soft); }
.answers { list-style: none; margin: 0; padding: 0; font-size: 14px; line-height: 1.4; overflow-wrap: anywhere; }
.answers li { margin-bottom: 8px; } .answers b { display: block; font-weight: 600; }
.question, .true { display: block; color: var(--soft); font-size: 13px; }
.right { color: #1a7f4b; } .wrong { color: var(--alarm); }
section > h3 { margin-top: 26px; }
.progress { break-inside: avoid; margin: 0 0 18px; }
.progress img { width: 100%; }
.book { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 26px 34px; }
.book figure { margin: 0; break-inside: avoid; }
.book img { width: 100%; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(530px, 100%), 1fr)); gap: 18px; }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; break-inside: avoid; }
.card header { display: flex; gap: 14px; align-items: center; margin-bottom: 10px; }
.card header img { width: 56px; height: 56px; flex: none; }
.card header span { color: var(--soft); font-size: 14px; display: block; }
.patches { display: grid; grid-template-columns: repeat(8, 1fr); gap: 4px; margin-bottom: 8px; }
.found { display: inline-block; margin: 0 14px 4px 0; white-space: nowrap; }
.found img { display: inline-block; width: 34px; height: 34px; object-fit: cover; margin-right: 2px;
  vertical-align: middle; }
.patches img { width: 100%; aspect-ratio: 1; object-fit: cover; }
.kind { font-size: 13px; color: var(--soft); margin: 8px 0 2px; font-weight: 600; }
.units { display: flex; flex-wrap: wrap; gap: 5px 6px; margin: 0 0 5px; padding: 0 0 0 74px; list-style: none;
  font-size: 14px; position: relative; min-height: 24px; }
.units li { background: var(--wash); border-radius: 6px; padding: 1px 8px; overflow-wrap: anywhere; }
.units.near li { background: #e7f1f8; }
.units.chance li { font-style: italic; color: var(--soft); }
.units li.of { background: none; color: var(--soft); font-size: 12px; font-style: normal; padding: 3px 0;
  position: absolute; left: 0; top: 0; }
.units small { color: var(--soft); font-size: 12px; margin-left: 4px; font-variant-numeric: tabular-nums; }
.side { display: grid; grid-auto-columns: minmax(0, 1fr); grid-auto-flow: column; gap: 18px; margin-bottom: 18px; }
.outcome { padding-left: 20px; max-width: 90ch; }
.outcome li { margin-bottom: 8px; }
.book + h3 { margin-top: 34px; }
footer { margin-top: 60px; color: var(--soft); font-size: 13px; border-top: 1px solid var(--line); padding-top: 12px; }
@media (max-width: 760px) { .side { grid-auto-flow: row; } main { padding: 22px 14px 50px; } h1 { font-size: 25px; } }
@media print { body { font-size: 12px; } main { max-width: none; padding: 0; } h2 { break-after: avoid;
  margin-top: 26px; }
  nav { display: none; } * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  .note { break-after: avoid; } .facts { grid-template-columns: repeat(4, 1fr); }
  .cards, .charts, .book { grid-template-columns: 1fr 1fr; gap: 14px 18px; }
  .chart, .fact, tr { break-inside: avoid; } }
"""
