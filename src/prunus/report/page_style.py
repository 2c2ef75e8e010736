"""What does the page look like?"""

__all__ = ["STYLE"]

STYLE = """
:root{--ink:#1d2321;--dim:#65706b;--line:#e3e6e1;--paper:#fbfbf8;--card:#fff;--green:#2f7d4f;--red:#b3402e;--blue:#33658a}
@media(prefers-color-scheme:dark){:root{--ink:#e6eae7;--dim:#98a39d;--line:#2c3431;--paper:#141816;--card:#1b211e;--green:#6fc493;--red:#ea8a76;--blue:#8dbbdc}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:3rem 1.25rem 5rem}
.eyebrow{margin:0;color:var(--green);font-size:.8rem;letter-spacing:.12em;text-transform:uppercase}
h1{margin:.1rem 0 .4rem;font-size:2.4rem;line-height:1.15;letter-spacing:-.02em}
h2{margin:0 0 .6rem;font-size:1.25rem;letter-spacing:-.01em}
section{margin-top:2.6rem}
.lead{max-width:46rem;margin:0;font-size:1.15rem;color:var(--dim)}
.dim{color:var(--dim);font-size:.9rem;margin:.3rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:.9rem;margin-top:2rem}
.cards div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1rem 1.1rem}
.cards b{display:block;font-size:1.9rem;line-height:1.1;letter-spacing:-.02em;color:var(--green);font-variant-numeric:tabular-nums}
.cards span{display:block;margin-top:.35rem;color:var(--dim);font-size:.85rem;line-height:1.35}
.scroll{overflow-x:auto}
.scroll td:last-child{white-space:normal}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th{text-align:right;font-weight:500;color:var(--dim);font-size:.8rem;line-height:1.25;vertical-align:bottom;padding:.35rem .7rem;border-bottom:1px solid var(--line)}
td{text-align:right;padding:.42rem .7rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
details td{white-space:normal;text-align:left}
small{color:var(--dim)}
.mark{display:inline-block;padding:.05rem .5rem;border-radius:99px;font-size:.78rem;border:1px solid currentColor;color:var(--blue)}
.mark.better{color:var(--green)}.mark.worse{color:var(--red)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:1rem}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1rem}
figcaption{font-size:.95rem;font-weight:600;margin-bottom:.5rem}
figure svg{width:100%;height:auto;max-height:420px}
.suspects{list-style:none;margin:1rem 0 0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:.7rem}
.suspects li{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.6rem;text-align:center;font-size:.95rem}
.suspects img{display:block;margin:0 auto .35rem;width:64px;height:64px;object-fit:contain;image-rendering:pixelated;border-radius:4px;background:#000}
.suspects small{display:block;font-size:.7rem;line-height:1.3}
summary{cursor:pointer;font-weight:600;margin:.6rem 0}
pre{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem;overflow-x:auto;font-size:.82rem;line-height:1.5}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85em}
"""
