"""The stylesheet of the bench report: two palettes safe for colour-blind readers, from phone to paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1c2430; --muted: #56606e; --rule: #e1e5ea; --grid: #e6e9ee;
  --reference: #7a8594; --sync: #c2570c; --async: #0a6cb0; --whisker: #1c2430; --guide: #56606e;
  --good: #1a6b3c; --bad: #a4262c; --shade: #1c24301c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2028; --ink: #e7ebf0; --muted: #a3adba; --rule: #2c3541; --grid: #29313c;
    --reference: #8b96a5; --sync: #f0953f; --async: #58b4ec; --whisker: #e7ebf0; --guide: #a3adba;
    --good: #6fcf97; --bad: #ff8f8a; --shade: #000000b0;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main, header, footer { max-width: 70rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2.5rem; }
footer { padding-bottom: 3rem; color: var(--muted); font-size: .875rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 3rem 0 1rem; }
h3 { font-size: 1rem; margin: 0; }
h4 { font-size: .9375rem; font-weight: 600; margin: 0; }
p { margin: 0 0 .75rem; max-width: 44rem; }
.muted, figcaption p, .sub { color: var(--muted); }
.verdict { font-weight: 600; }
.verdict.good { color: var(--good); }
.verdict.bad { color: var(--bad); }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.pair { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.card, figure, .tables {
  background: var(--card); border: 1px solid var(--rule); border-radius: 12px;
  padding: 1.1rem 1rem; margin: 0; min-width: 0;
}
.card dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem 1rem; margin: .6rem 0 0; }
.card dt { color: var(--muted); }
.card dd {
  margin: 0; text-align: right; text-wrap: balance; font-weight: 600; font-variant-numeric: tabular-nums;
}
figcaption p { font-size: .875rem; margin: .15rem 0 0; }
.case { margin-top: 1.35rem; }
.case-head {
  display: flex; flex-wrap: wrap; gap: 0 .75rem; align-items: baseline; justify-content: space-between;
}
.sub { font-size: .8125rem; font-weight: 400; margin: 0; }
.verse { font-size: .875rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.box { padding: .4rem 5.6rem 0 5rem; overflow: hidden; }
.unit { padding-bottom: .1rem; text-align: center; }
svg {
  display: block; overflow: visible; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
svg text { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .label { text-anchor: end; fill: var(--muted); }
svg .value { font-weight: 600; }
svg .tick { text-anchor: middle; fill: var(--muted); font-size: 12px; }
svg .grid { stroke: var(--grid); }
svg .guide { stroke: var(--guide); stroke-dasharray: 3 3; }
svg .whisker { stroke: var(--whisker); stroke-width: 1.5; }
svg .notch { stroke: var(--whisker); stroke-width: 2; }
svg .reference { fill: var(--reference); }
svg .sync { fill: var(--sync); }
svg .async { fill: var(--async); }
svg .stroke { stroke-width: 2; }
svg .sync .stroke { stroke: var(--sync); }
svg .async .stroke { stroke: var(--async); }
.whole { grid-column: 1 / -1; }
.box.wide { padding-left: 2.6rem; padding-right: 8rem; }
.notes { margin: 1rem 0 0; padding-left: 1.2rem; color: var(--muted); font-size: .875rem; }
.tables { margin-top: 1rem; }
.scroll { /* a shade at an edge behind which there is more: the first two layers move along and cover it */
  overflow-x: auto; margin: 0 -.6rem;
  background:
    linear-gradient(to right, var(--card) 40%, transparent) 0 0 / 2.5rem 100% no-repeat local,
    linear-gradient(to left, var(--card) 40%, transparent) 100% 0 / 2.5rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) 0 0 / .8rem 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) 100% 0 / .8rem 100% no-repeat scroll;
}
.scroll + .scroll { margin-top: 1.5rem; }
.scroll:focus-visible { outline: 2px solid var(--async); outline-offset: 2px; }
table {
  min-width: 100%; border-collapse: collapse; font-size: .875rem;
  font-variant-numeric: tabular-nums;
}
caption { text-align: left; padding-left: .6rem; font-weight: 600; font-size: 1rem; padding-bottom: .4rem; }
th, td { text-align: right; padding: .35rem .6rem; white-space: nowrap; vertical-align: baseline; }
thead th {
  color: var(--muted); font-weight: 500; border-bottom: 1px solid var(--rule); vertical-align: bottom;
  white-space: normal; overflow-wrap: normal; min-width: 4.5rem;
}
th[scope^=row], thead th.words { text-align: left; font-weight: 500; }
tbody th.case-name {
  white-space: normal; overflow-wrap: normal; min-width: 8rem; vertical-align: top; font-weight: 600;
}
tbody + tbody tr:first-child > * { border-top: 1px solid var(--rule); }
th .key { display: inline-block; width: .65em; height: .65em; border-radius: 2px; margin-right: .5em; }
.key.reference { background: var(--reference); }
.key.sync { background: var(--sync); }
.key.async { background: var(--async); }
.method { display: grid; gap: .9rem 2rem; margin: 0; }
.method dt { font-weight: 600; }
.method dd { margin: .1rem 0 0; max-width: 44rem; color: var(--muted); }
@media (max-width: 30rem) {
  header { padding-top: 1.5rem; }
  .box { padding-left: 4.5rem; padding-right: 5.6rem; }
}
@media print {
  body { background: none; font-size: 12px; }
  figure, .card, .tables { break-inside: avoid; }
}
"""
