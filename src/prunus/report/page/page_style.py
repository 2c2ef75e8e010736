"""What does the page look like? On paper and in the dark, on a wide screen and on a telephone.

The charts are drawn in the colours of :data:`PALETTE`; the style sheet finds them by these values and gives them the page's own.
"""

__all__ = ["PALETTE", "STYLE"]

PALETTE = {
    "plum": "#7b2d5b",
    "leaf": "#3f7d52",
    "sand": "#d9caa3",
    "blue": "#3a6a92",
    "grey": "#9d9a92",
    "amber": "#b7791f",
    "dim": "#6d6a64",
    "line": "#e4e1d9",
}
"""Pruned, kept, removed, relabelled, dense, one more, and what labels and grid lines have."""

_DARK = {
    "plum": "#dd97c2",
    "leaf": "#84c79a",
    "sand": "#5f5642",
    "blue": "#8fbde0",
    "grey": "#8d8a83",
    "amber": "#e0b060",
    "dim": "#a5a097",
    "line": "#35332e",
}


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in colours.items())


_CHART_COLOURS = "".join(
    f'svg [{attribute}="{colour}"]{{{attribute}:var(--{name})}}'
    for name, colour in PALETTE.items()
    for attribute in ("fill", "stroke")
)

STYLE = f"""
:root{{color-scheme:light dark;--paper:#faf9f5;--card:#fff;--ink:#1f1d1a;--wash:#f2efe7;--red:#b3402e;{_variables(PALETTE)}}}
@media(prefers-color-scheme:dark){{:root{{--paper:#171614;--card:#1f1e1b;--ink:#ece9e2;--wash:#24221e;--red:#ee8d79;{_variables(_DARK)}}}}}
{_CHART_COLOURS}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%}}
body{{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif}}
main{{max-width:1140px;margin:0 auto;padding:3.5rem 1.5rem 6rem}}
h1,.numbers b{{font-family:"Iowan Old Style","Palatino Linotype",Palatino,"Book Antiqua",Georgia,"Liberation Serif",serif;font-weight:500}}
h1{{max-width:24em;margin:.35rem 0 1rem;font-size:clamp(1.8rem,4.6vw,2.9rem);line-height:1.14;letter-spacing:-.015em;text-wrap:balance}}
h2{{margin:0;font-size:1rem;font-weight:650;letter-spacing:-.005em}}
h3{{margin:0;font-size:.9rem;font-weight:600}}
p{{margin:0 0 .8rem}}
.eyebrow{{margin:0;color:var(--plum);font-size:.82rem;font-weight:600;letter-spacing:.02em}}
.lead{{max-width:52rem;text-wrap:pretty;margin:0;font-size:1.12rem;line-height:1.5;color:var(--dim)}}
.lead strong{{color:var(--ink);font-weight:600}}
.dim{{color:var(--dim);font-size:.88rem;line-height:1.5}}
.numbers{{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));margin:2.6rem 0 0;border-top:2px solid var(--ink)}}
.numbers div{{padding:1rem 1.2rem 1.1rem 0}}
.numbers b{{display:block;font-size:2.35rem;line-height:1.05;letter-spacing:-.02em;font-variant-numeric:lining-nums tabular-nums}}
.numbers span{{display:block;margin-top:.3rem;font-size:.9rem;line-height:1.35}}
.numbers small{{display:block;margin-top:.1rem;font-size:.8rem;line-height:1.35}}
section{{display:grid;grid-template-columns:10.5rem minmax(0,1fr);gap:0 2rem;margin-top:2.6rem;padding-top:1.3rem;border-top:1px solid var(--line)}}
section>h2{{grid-column:1}}
section>div{{grid-column:2;min-width:0}}
section>div>*+*{{margin-top:1.1rem}}
.scroll{{overflow-x:auto;overscroll-behavior-x:contain}}
table{{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}}
th{{text-align:right;font-weight:500;color:var(--dim);font-size:.8rem;line-height:1.25;vertical-align:bottom;padding:0 .75rem .45rem;border-bottom:1px solid var(--line)}}
td{{text-align:right;padding:.5rem .75rem;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:middle}}
tr:last-child td{{border-bottom:0}}
th:first-child,td:first-child{{text-align:left;padding-left:0}}
th:last-child,td:last-child{{padding-right:0}}
td small,li small{{color:var(--dim);font-size:.8rem;font-weight:400}}
td small{{display:block;line-height:1.3}}
small{{color:var(--dim)}}
table.words td{{text-align:left;white-space:normal;vertical-align:top}}
table.words th{{text-align:left}}
table.words td:first-child{{width:45%}}
table.looks td:last-child,table.looks th:last-child{{text-align:left;white-space:normal;min-width:15rem}}
.mark{{display:inline-block;padding:.08rem .55rem;border-radius:99px;font-size:.78rem;line-height:1.5;white-space:nowrap;background:var(--wash);color:var(--dim)}}
.mark.better{{background:color-mix(in srgb,var(--leaf) 16%,transparent);color:var(--leaf)}}
.mark.worse{{background:color-mix(in srgb,var(--red) 16%,transparent);color:var(--red)}}
.forest{{display:block;width:150px;height:20px;color:var(--dim)}}
.forest.better{{color:var(--leaf)}}.forest.worse{{color:var(--red)}}
.forest .zero{{stroke:var(--grey);stroke-width:1;stroke-dasharray:2 2}}
.bar{{display:inline-block;vertical-align:middle;width:110px;height:9px;border-radius:2px;background:var(--sand);overflow:hidden}}
.bar i{{display:block;height:100%;background:var(--leaf)}}
.charts{{columns:2 360px;column-gap:2.2rem}}
figure{{margin:0 0 2.2rem;break-inside:avoid}}
figcaption{{margin-bottom:.6rem;font-size:.9rem;font-weight:600;line-height:1.35}}
figcaption small{{display:block;font-weight:400;font-size:.82rem}}
figure svg{{display:block;width:100%;height:auto;overflow:visible}}
figure svg text{{font-family:inherit}}
.pictures{{display:grid;grid-template-columns:repeat(auto-fill,minmax(128px,1fr));gap:.9rem}}
.pictures figure{{margin:0}}
.pictures img,.pictures svg{{display:block;width:100%;height:auto;image-rendering:pixelated;border-radius:6px;overflow:hidden}}
.pictures figcaption{{margin:.3rem 0 0;font-weight:400}}
.suspects{{list-style:none;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(92px,1fr));gap:1.1rem .9rem}}
.suspects li{{font-size:.9rem;line-height:1.3}}
.suspects img{{display:block;width:100%;aspect-ratio:1;margin-bottom:.4rem;object-fit:contain;image-rendering:pixelated;border-radius:6px;background:#000}}
.suspects del{{color:var(--red);text-decoration-thickness:1.5px}}
.suspects ins{{color:var(--leaf);text-decoration:none;font-weight:650}}
.suspects small{{display:block;font-size:.72rem;overflow-wrap:anywhere}}
.pairs{{list-style:none;padding:0;margin:.5rem 0 0;display:grid;grid-template-columns:repeat(auto-fill,minmax(158px,1fr));gap:1.1rem .9rem}}
.pairs li{{font-size:.9rem;line-height:1.3}}
.pairs div{{display:grid;grid-template-columns:1fr 1fr;gap:3px;margin-bottom:.4rem}}
.pairs img{{display:block;width:100%;aspect-ratio:1;object-fit:contain;image-rendering:pixelated;border-radius:6px;background:#000}}
.pairs small{{display:block;font-size:.72rem;overflow-wrap:anywhere}}
.key{{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin:0 0 .6rem;padding:0;font-size:.88rem}}
.key li::before{{content:"";display:inline-block;width:.65em;height:.65em;margin-right:.4em;border-radius:50%;background:currentColor}}
.key li{{color:var(--dot)}}.key li small{{margin-left:.2em}}
.map{{background:var(--card);border:1px solid var(--line);border-radius:8px}}
.map circle{{r:3.4px;fill:var(--dot);stroke:var(--card);stroke-width:.5}}
.map circle:hover{{r:7px;stroke:var(--ink);stroke-width:1.5}}
.keep{{--dot:var(--grey)}}.flag{{--dot:var(--amber)}}.drop{{--dot:var(--red)}}.relabel{{--dot:var(--blue)}}
.map .keep circle{{opacity:.55;r:2.6px}}
.heat{{table-layout:fixed;border-collapse:separate;border-spacing:3px}}
.heat thead th:first-child{{width:8.5rem;text-align:left}}
.heat th{{border:0;padding:.3rem .5rem}}
.heat thead th+th{{text-align:center}}
.heat th[scope=row]{{text-align:left;vertical-align:middle;padding-left:0;white-space:nowrap}}
.heat th small{{display:block;font-weight:400;line-height:1.3}}
.heat td{{border:0;border-radius:6px;text-align:center;padding:.7rem .5rem}}
.heat tbody td{{background:color-mix(in srgb,var(--tone) var(--strength),var(--wash));color:var(--ink)}}
.heat tbody td small{{color:inherit;opacity:.85}}
.heat td b{{white-space:nowrap}}
.heat td i{{font-style:normal}}
.heat td.least{{outline:2px solid var(--ink);outline-offset:-2px}}
.heat tbody td:hover{{outline:2px solid var(--plum);outline-offset:-2px}}
details{{border-top:1px solid var(--line);padding-top:.7rem}}
summary{{cursor:pointer;font-size:.9rem;font-weight:600}}
summary:hover{{color:var(--plum)}}
summary small{{font-weight:400}}
details[open]>summary{{margin-bottom:.9rem}}
ul.notes{{margin:0;padding-left:1.1rem}}
ul.notes li{{margin:.2rem 0}}
dl{{display:grid;grid-template-columns:8rem minmax(0,1fr);gap:.35rem 1rem;margin:0;font-size:.88rem}}
dt{{color:var(--dim)}}
dd{{margin:0;overflow-wrap:anywhere}}
pre{{margin:0;background:var(--wash);border-radius:8px;padding:1rem 1.1rem;overflow-x:auto;font-size:.8rem;line-height:1.5}}
code,pre{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}}
code{{font-size:.92em}}
@media(max-width:860px){{
main{{padding:2rem 1.1rem 4rem}}
section{{display:block;margin-top:2rem;padding-top:1rem}}
section>h2{{margin-bottom:.9rem;font-size:1.1rem}}
.numbers{{grid-template-columns:repeat(2,1fr);margin-top:1.8rem}}
.numbers b{{font-size:1.9rem}}
dl{{grid-template-columns:6.5rem minmax(0,1fr)}}
}}
@media(max-width:600px){{
.quality th:nth-child(5),.quality td:nth-child(5),.quality td:nth-child(2) small,.quality td:nth-child(3) small{{display:none}}
.mark{{white-space:normal;max-width:5.4rem;border-radius:9px;text-align:center;line-height:1.25;font-size:.72rem;padding:.12rem .4rem}}
.quality td:first-child,.quality td:nth-child(4),.cost td:first-child,.cost td:last-child{{white-space:normal}}
.cost td:nth-child(2) small,.cost td:nth-child(3) small{{display:none}}
th,td{{padding-left:.4rem;padding-right:.4rem}}
table{{font-size:.86rem}}
td small{{font-size:.72rem}}
.heat th,.heat td,.heat th[scope=row]{{padding:.4rem .2rem;white-space:normal}}
.heat thead th:first-child{{width:4rem}}
.heat td i{{display:none}}
}}
@media print{{main{{max-width:none;padding:0}}section,figure,li{{break-inside:avoid}}.scroll{{overflow:visible}}}}
"""
