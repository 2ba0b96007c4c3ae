"""A section of the page, and the figures in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from lm_eval_ape.display import plot_style


class Section(NamedTuple):
    """One part of the page.

    Attributes:
        name: Its anchor, and the name of its template in `assets/sections`.
        title: Its heading.
        content: What its template reads.
    """

    name: str
    title: str
    content: Mapping[str, Any]


class Drawn(NamedTuple):
    """A figure in the page.

    Attributes:
        svg: The figure itself, for the page.
        alt: What it shows, for those who do not see it.
        caption: What it says.
        files: The same as files, as paths from the page.
        wide: Whether it needs the page's whole width.
    """

    svg: Markup
    alt: str
    caption: str
    files: dict[str, str]
    wide: bool


class Figures:
    """Draws figures into the page and, as PNG and SVG, into a folder beside it.

    Args:
        folder: The page's folder.
    """

    NAME = "figures"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.NAME

    def add(self, name: str, figure: Figure, *, alt: str, caption: str) -> Drawn:
        """Draw a figure.

        Args:
            name: Its files' name, which no other figure of the page has.
            figure: The figure.
            alt: What it shows, for those who do not see it.
            caption: What it says.
        """
        paths = plot_style.save(figure, self.folder, name)
        files = {path.suffix[1:].upper(): f"{self.NAME}/{path.name}" for path in paths}
        wide = figure.get_figwidth() > 1.5 * figure.get_figheight()
        return Drawn(inline(plot_style.svg(figure, name), name), alt, caption, files, wide)


def inline(svg: str, name: str) -> Markup:
    """SVG as it can stand in a page: without prolog and metadata, its identifiers its own, its ink the page's.

    Args:
        svg: What matplotlib wrote; it escapes all text.
        name: What sets its identifiers apart from other figures'.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\sid=")', rf"\1{name}-", body)
    body = re.sub(r'(url\(#|href="#)', rf"\1{name}-", body)
    body = re.sub(r"^<svg ", '<svg aria-hidden="true" focusable="false" ', body)
    return Markup(body.replace(plot_style.INK, "currentColor"))
