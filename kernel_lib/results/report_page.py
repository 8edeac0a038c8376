"""What a report is made of: its style, tables, figures and lists, everything escaped.

No script, nothing fetched; pictures stand in the page as base64.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from kernel_lib.results.chart import Chart

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #222; --muted: #5f6368; --line: #e3e6ea;
  --tint: #eaf3fa; --note: #fff5e8; --mark: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --page: #17191c; --ink: #e6e6e6; --muted: #a5abb3;
  --line: #363b42; --tint: #1d2f40; --note: #33281b; --mark: #f0944d; } img { padding: .6rem; } }
body { background: var(--page); color: var(--ink); max-width: 920px; margin: 2.5rem auto;
  padding: 0 1.25rem; font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 2rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
h1 small { font-size: 1rem; font-weight: 400; }
.muted, figcaption, th, small, dt { color: var(--muted); }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; }
dt { font-size: .85rem; } dd { margin: 0; font-size: 1.2rem; }
.look { background: var(--note); border-left: 4px solid var(--mark); padding: .6rem 1.2rem; }
.look ul { margin: .2rem 0; padding-left: 1.1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-size: .9rem; font-weight: 400; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide th, .wide td { text-align: right; white-space: nowrap; }
.wide tr > :first-child { text-align: left; } .changed td { background: var(--tint); }
.wide tr:last-child td { font-weight: 650; border: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 2rem;
  align-items: start; } .pair td:first-child { white-space: nowrap; width: 1%; }
figure { margin: 0; } figcaption { font-size: .9rem; margin-top: .4rem; }
img { display: block; box-sizing: border-box; width: 100%; background: #fff; border-radius: 6px; }
"""


def begin_page(title: str, styles: Iterable[str] = ()) -> str:
    """The page up to its first visible line.

    Args:
        title: of the browser's window.
        styles: what parts of the page need beside the common style.
    """
    style = "".join((STYLE, *styles))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{style}</style>"
    )


def table(
    rows: Sequence[Sequence[Any]], *, header: Sequence[str] = (), tinted: Collection[str] = ()
) -> str:
    """An HTML table; rows whose first cell is in ``tinted`` stand out."""
    names = "".join(f"<th>{escaped(name)}</th>" for name in header)
    lines = [f"<tr>{names}</tr>"] if header else []
    for row in rows:
        mark = ' class="changed"' if row[0] in tinted else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def figure(heading: str, chart: Chart, caption: str = "") -> str:
    """A heading and a picture under it."""
    picture = base64.b64encode(chart.png()).decode("ascii")
    return (
        f"<h2>{escaped(heading)}</h2>\n"
        f'<figure><img alt="{escaped(heading)}" src="data:image/png;base64,{picture}">\n'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def worth_a_look(warnings: Iterable[str]) -> str:
    """The box of what a person should know before trusting the score."""
    items = "".join(f"<li>{escaped(warning)}</li>" for warning in warnings)
    if not items:
        return '<p class="muted">Nothing out of the ordinary was recorded.</p>'
    return f'<div class="look"><strong>Worth a look</strong><ul>{items}</ul></div>'


def muted(text: str) -> str:
    """A paragraph in the quiet colour."""
    return f'<p class="muted">{escaped(text)}</p>'


def escaped(value: Any) -> str:
    """A value as text that is safe in a page and in an attribute."""
    return html.escape(str(value))
