"""The style sheet of the report: for a light screen, a dark screen and paper.

Blue (a) and orange (b) differ for every kind of colour vision; a2 and a3 are weaker blues. Tints of
the text are one orange in eight strengths, on which text stays readable in both colour schemes.
"""

DAY = """
--paper:#fff;--wash:#f5f6f8;--ink:#191c21;--soft:#59616d;--rule:#dfe2e7;
--a:#0b61a4;--a2:#6ea2cd;--a3:#b9d2e8;--b:#c2500a;--on-a:#fff;--on-a2:#191c21;--tint:232 110 20;
"""
NIGHT = """
--paper:#15171b;--wash:#1e2126;--ink:#e8eaee;--soft:#a0a8b4;--rule:#343a43;
--a:#63b0ee;--a2:#3f7fb5;--a3:#2b5475;--b:#f29150;--on-a:#10151b;--on-a2:#fff;--tint:240 110 30;
"""

STRENGTHS = (0, 0.06, 0.12, 0.2, 0.3, 0.43, 0.6, 0.82)

STYLE = (
    f":root{{color-scheme:light dark;{DAY}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{NIGHT}}}}}"
    + """
*{box-sizing:border-box}
body{margin:0 auto;padding:2.5rem 1.25rem 3rem;max-width:52rem;background:var(--paper);
color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
"Noto Sans","DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums;
-webkit-text-size-adjust:100%;print-color-adjust:exact;-webkit-print-color-adjust:exact}
h1,h2,p,figure,dl,dd,ul,pre{margin:0}
.kicker{color:var(--soft);font-size:.875rem;margin-bottom:.75rem}
h1{font-size:clamp(1.5rem,5vw,2rem);line-height:1.2;font-weight:650;letter-spacing:-.015em}
h1 b{display:block;font-size:clamp(3rem,13vw,4.75rem);line-height:1.05;font-weight:700;
letter-spacing:-.035em;color:var(--b)}
.verdict{font-size:1.125rem;margin-top:1rem;max-width:40rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:1rem 2rem;
margin:1.75rem 0 0;padding:1rem 0;border-top:1px solid var(--ink);
border-bottom:1px solid var(--rule)}
.facts dt{color:var(--soft);font-size:.8125rem}
.facts dd{font-size:1.25rem;font-weight:600;letter-spacing:-.01em}
.facts small{display:block;font-size:.8125rem;font-weight:400;color:var(--soft);letter-spacing:0}
section{margin-top:3.25rem}
h2{font-size:1.25rem;line-height:1.3;font-weight:650;letter-spacing:-.01em;margin-bottom:.6rem}
.say,figcaption,.missing,.note{max-width:40rem}
.say{margin-bottom:1rem}
.missing{color:var(--soft)}
figcaption,.note{color:var(--soft);font-size:.875rem;margin-top:.5rem}
figure+figure,.wide+figure{margin-top:1.75rem}
.pair{display:grid;grid-template-columns:3fr 2fr;gap:0 2rem}
.pair figure+figure{margin-top:0}
.chart{display:block;overflow:visible}
.chart text{font-size:12px;fill:var(--soft)}
.chart .unit,.chart .name{fill:var(--ink)}
.chart .number{fill:var(--ink);font-weight:600}
.chart .series{font-size:13px;font-weight:650;stroke:var(--paper);stroke-width:4px;
paint-order:stroke;stroke-linejoin:round}
.chart .series.a{fill:var(--a)}.chart .series.b{fill:var(--b)}
.chart .grid{stroke:var(--rule);stroke-width:1}
.line{fill:none;stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round;
vector-effect:non-scaling-stroke}
.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}
.area{fill:var(--b);opacity:.13}
.mark{stroke:var(--rule);stroke-width:1;vector-effect:non-scaling-stroke}
.at{stroke:var(--ink);stroke-width:2}
.fill.a{fill:var(--a)}.fill.a2{fill:var(--a2)}.fill.a3{fill:var(--a3)}.fill.b{fill:var(--b)}
.fill.rest{fill:var(--soft)}
.fill.free{fill:none;stroke:var(--soft);stroke-dasharray:3 3}
.chart .on{font-size:13px;font-weight:600;fill:var(--on-a)}.chart .on.a2{fill:var(--on-a2)}
.chart .on.a3,.chart .on.free{fill:var(--ink)}
.wide{overflow-x:auto;margin-top:.75rem}
table{border-collapse:collapse;width:100%;font-size:.875rem;line-height:1.35}
th,td{padding:.4rem 0 .4rem .9rem;text-align:right;border-bottom:1px solid var(--rule);
vertical-align:baseline}
th:first-child,td:first-child{text-align:left;padding-left:0}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom;
border-bottom:1px solid var(--ink)}
tbody th{font-weight:400}
tr.ours>*{font-weight:650}
.key{display:inline-block;width:.75rem;height:.75rem;margin-right:.5rem}
.key.a{background:var(--a)}.key.a2{background:var(--a2)}.key.a3{background:var(--a3)}
.key.b{background:var(--b)}.key.rest{background:var(--soft)}.key.free{border:1px dashed var(--soft)}
.heat td,.heat th{padding:.35rem .5rem;text-align:center;white-space:nowrap}
.heat th:first-child{text-align:left;padding-left:0}
.legend{display:flex;flex-wrap:wrap;gap:.25rem .4rem;padding:0;list-style:none;
font-size:.8125rem}
.legend i{display:inline-block;padding:.1rem .45rem;border:1px solid var(--rule)}
i{font-style:normal}
details{border-bottom:1px solid var(--rule);padding:.6rem 0}
.legend+details{margin-top:.75rem;border-top:1px solid var(--rule)}
summary{cursor:pointer}
summary b{font-weight:650}
summary span{color:var(--soft)}
.text{margin:.75rem 0 .5rem;padding:1rem;max-height:26rem;overflow:auto;background:var(--wash);
white-space:pre-wrap;overflow-wrap:anywhere;font:.9375rem/1.75 Charter,"Iowan Old Style",Georgia,
"DejaVu Serif",serif}
pre{padding:.7rem .9rem;background:var(--wash);overflow-x:auto;white-space:pre-wrap;
overflow-wrap:anywhere;font:.8125rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,
"DejaVu Sans Mono",monospace}
pre.copy span{white-space:nowrap}
pre.copy{user-select:all;-webkit-user-select:all}
p+pre,pre+p{margin-top:.5rem}pre+.step{margin-top:1.1rem}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}
footer{margin-top:3.5rem;padding-top:1rem;border-top:1px solid var(--ink);color:var(--soft);
font-size:.8125rem}
@media (max-width:36rem){body{padding-top:1.5rem}.pair{display:block}
.pair figure+figure,.wide+figure{margin-top:1.75rem}.heat{font-size:.75rem}
.heat td,.heat th{padding:.35rem .15rem}}
@media print{body{padding:0;max-width:none;font-size:10.5pt}section{margin-top:1.75rem}
figure,table,.copy,.say,.legend{break-inside:avoid}h2,.say{break-after:avoid}
.text{max-height:none;overflow:visible;padding:0;background:none;font-size:9pt}}
"""
    + "".join(f".t{i}{{background:rgb(var(--tint)/{s:g})}}" for i, s in enumerate(STRENGTHS))
)
