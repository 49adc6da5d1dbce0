"""Pieces of a self-contained HTML page: no script, nothing fetched, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

# Nothing may be loaded from anywhere, whatever a text on the page says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #222; margin: 0 auto;
  max-width: 72rem; padding: 1.5rem; background: #fff; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #d8dee4; }
p { max-width: 50rem; margin: .5rem 0; }
.lead { color: #555; }
.note { color: #555; font-size: .9rem; }
table { border-collapse: collapse; font-size: .88rem; margin: .6rem 0; }
th, td { padding: .22rem .8rem .22rem 0; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid #999; font-weight: 600; vertical-align: bottom; }
th.text, td.text { text-align: left; }
tbody tr:nth-child(odd) { background: #f6f8fa; }
tr.extra td { color: #00795a; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .6rem 0; }
dt { color: #555; }
dd { margin: 0; }
pre, code { font: .85rem/1.45 "DejaVu Sans Mono", ui-monospace, monospace; }
pre { background: #f6f8fa; padding: .7rem .9rem; overflow-x: auto; }
figure { margin: .8rem 0; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
nav { margin: .8rem 0; font-size: .9rem; }
nav a { margin-right: 1rem; color: #0072b2; }
.side { display: flex; flex-wrap: wrap; gap: 1rem; }
.side figure { flex: 1 1 30rem; }
"""


def page(title: str, lead: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A whole document; `sections` are (identifier, heading, HTML)."""
    links = " ".join(f'<a href="#{name}">{escape(head)}</a>' for name, head, _ in sections)
    body = "\n".join(
        f'<section id="{name}">\n<h2>{escape(head)}</h2>\n{html}\n</section>'
        for name, head, html in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n<nav>{links}</nav>\n'
        f"{body}\n</body>\n</html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(a)}</dt><dd>{escape(b)}</dd>' for a, b in pairs)}</dl>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, marked: Iterable[int] = ()
) -> str:
    """A table whose first `left` columns are text, the others numbers; `marked` rows stand out."""
    kinds = ['class="text"' if index < left else "" for index in range(len(head))]
    titles = "".join(f"<th {k}>{escape(h)}</th>" for k, h in zip(kinds, head, strict=True))
    special = set(marked)
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td {k}>{escape(c)}</td>" for k, c in zip(kinds, row, strict=True))
        lines.append(f'<tr class="extra">{cells}</tr>' if index in special else f"<tr>{cells}</tr>")
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, html: str) -> str:
    """HTML that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def figure(svg: str, caption: str) -> str:
    """A picture; `svg` is an <svg> element and goes in as it is."""
    return f'<figure role="img" aria-label="{escape(caption)}">{svg}</figure>'


def side_by_side(parts: Iterable[str]) -> str:
    return f'<div class="side">{"".join(parts)}</div>'
