"""How figures look: one set of colours, markers and line styles for calibrations, comparisons and reports.

The colours are those of Okabe and Ito, "Color universal design" (2008), which readers with any kind of colour vision
tell apart; each comes with a marker and a line style of its own, so that nothing is said by colour alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from lm_eval_ape.display.escaping import terminal
from lm_eval_ape.storage.files import whole_file, writing_told

FORMATS = ("png", "svg")
INK = "#1b1c21"
"""Colour of text and axes; a page that shows a figure inline may put its own in its place."""
HEAT = "cividis_r"
"""Colour map of surfaces, dark for much; its lightness rises evenly and its hues are safe."""
_COLORS = (INK, "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = (("o", "●"), ("s", "■"), ("D", "◆"), ("P", "✚"), ("X", "✖"), ("*", "★"), ("h", "⬢"), ("p", "⬟"))
_LINES = ("-", "--", "-.", ":")
_RC: dict[Any, Any] = {
    # Names of tasks and strategies are text, whatever signs they hold.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
    ),
}


class Series(NamedTuple):
    """How one row of a comparison is drawn.

    Attributes:
        color: As `#rrggbb`.
        marker: Matplotlib's name of its marker.
        line: Matplotlib's name of its line style.
        glyph: The marker as a letter, for tables.
    """

    color: str
    marker: str
    line: str
    glyph: str

    @property
    def options(self) -> dict[str, Any]:
        """As arguments of `Axes.plot` and `Axes.errorbar`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.line}


def series(count: int) -> list[Series]:
    """Styles of so many rows; the first 56 differ in colour or marker."""
    styles = zip(cycle(_COLORS), cycle(_MARKERS), cycle(_LINES), strict=False)
    return [Series(color, marker, line, glyph) for color, (marker, glyph), line in islice(styles, count)]


@contextmanager
def styled() -> Iterator[None]:
    """Figures made and saved inside look alike."""
    with matplotlib.rc_context(_RC):
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG.

    Returns:
        The files.

    Raises:
        ApeError: One cannot be written.
    """
    paths = []
    _write_out_controls(figure)
    # Identifiers and date in the file are the same each time, so that it is too.
    with styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        for kind in FORMATS:
            path = folder / f"{name}.{kind}"
            metadata = {"Date": None} if kind == "svg" else None
            with writing_told(path):
                folder.mkdir(parents=True, exist_ok=True)
                with whole_file(path, durable=False) as draft:
                    figure.savefig(
                        draft, format=kind, dpi=150, bbox_inches="tight", facecolor="white", metadata=metadata
                    )
            paths.append(path)
    return paths


def svg(figure: Figure, name: str) -> str:
    """A figure as SVG text without a background.

    Args:
        figure: The figure.
        name: Makes the identifiers in it differ from those of other figures.
    """
    buffer = io.StringIO()
    _write_out_controls(figure)
    with styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _write_out_controls(figure: Figure) -> None:
    """Names of tasks and rows may hold control characters, with which an SVG is no XML."""
    for text in figure.findobj(Text):
        if (shown := terminal(text.get_text())) != text.get_text():
            text.set_text(shown)
