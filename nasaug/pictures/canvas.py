"""What all pictures share: colours that colour-blind people tell apart, blank sheets, files.

Figures are made without pyplot, so that nothing global is left behind and no display is needed.
Colours: Okabe and Ito, "Color Universal Design" (2008).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from nasaug.training import write_atomically

BLUE, SKY, GREEN, ORANGE, RED = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
INK, GREY, STRIPE, PAPER = "#222222", "#777777", "#F6F8FA", "#FFFFFF"
FORMATS = (".svg", ".png")
DOTS_PER_INCH = 110
LONGEST_NAME = 60
# Kinds of rows as people say them; the others are said as they are written.
KINDS = {
    "conv": "convolution",
    "depthwise_separable": "depthwise separable",
    "inverted_residual": "inverted residual",
    "max_pool": "max pool",
    "global_avg_pool": "average pool",
}
SETTINGS: dict[Any, Any] = {  # keys are literals to some releases' types, text to others'
    "svg.fonttype": "none",  # text stays text: small files, and a reader can search them
    "svg.hashsalt": "nasaug",  # equal figures are equal files
    "text.parse_math": False,  # names come from people; a dollar in one is a dollar
    "font.size": 9.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib with the settings of these pictures; to be used around making and rendering."""
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        # A user's name may hold characters that the font lacks; boxes stand for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def sheet(width: float, height: float) -> Figure:
    """A blank white figure of `width` x `height` inches."""
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=PAPER)


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a file's content; `kind` is "svg" or "png". Equal figures give equal bytes."""
    buffer = io.BytesIO()
    # The metadata that matplotlib would write are the date and links to its home page.
    nothing = {"svg": ("Date", "Creator", "Format", "Type"), "png": ("Software",)}[kind]
    with style():
        figure.savefig(buffer, format=kind, metadata=dict.fromkeys(nothing))
    return buffer.getvalue()


def save_picture(figure: Figure, path: Path) -> None:
    """Write the figure, atomically. Raises: ValueError for an ending other than .svg and .png;
    OSError."""
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ValueError(
            f"a picture's file must end in {' or '.join(FORMATS)}, but got {str(path)!r}"
        )
    write_atomically(path, render(figure, kind[1:]))


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element for a page that holds several.

    `name` is the figure's own on that page: it is put before the identifiers that the picture
    refers to, and the others, which would be double, are dropped.
    """
    text = render(figure, "svg").decode()
    text = text[text.index("<svg") :]
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    wanted = {first or second for first, second in used}

    def renamed(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in wanted else ""

    text = re.sub(r' id="([^"]*)"', renamed, text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    return re.sub(r"url\(#", f"url(#{name}-", text)


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """A name as people wrote it, fit for a picture: printable and not too long."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"
