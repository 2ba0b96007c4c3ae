"""The page, put together from its sections: one file that needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lm_eval_ape.errors import ApeError
from lm_eval_ape.report.material import Material, find
from lm_eval_ape.report.section import Figures
from lm_eval_ape.report.sections import SECTIONS
from lm_eval_ape.report.warnings import warnings
from lm_eval_ape.storage.files import write_text
from lm_eval_ape.version import __version__

FILE_NAME = "report.html"
_ASSETS = Path(__file__).parent / "assets"


def report(folders: Sequence[str], output: str | None = None) -> Path:
    """Make a report of all boards and calibrations in some folders and below.

    Args:
        folders: Where to look.
        output: Folder for `report.html` and `figures/`; the first one by default.

    Returns:
        The page.

    Raises:
        ApeError: Nothing is found, a file cannot be read, or the page cannot be written.
    """
    material = find(folders)
    first = Path(folders[0]).expanduser()
    folder = Path(output).expanduser() if output else first if first.is_dir() else first.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / FILE_NAME
        write_text(page, render(material, Figures(folder)))
    except OSError as error:
        raise ApeError(f"The report cannot be written to {folder}: {error}") from error
    return page


def render(material: Material, figures: Figures) -> str:
    """The page as HTML.

    Args:
        material: What it shows.
        figures: Draws its figures.
    """
    # A glyph that the drawing font lacks is no reason to warn: the page's own fonts draw its text.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    sections = [section for module in SECTIONS if (section := module.build(material, figures)) is not None]
    environment = Environment(
        loader=PackageLoader("lm_eval_ape.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Rows keep the board's order.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "ensure_ascii": False}
    script = (_ASSETS / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    models = [row.model for board in material.boards for row in board.content.rows]
    models += [found.content.model.pretrained for found in material.calibrations]
    models += [found.content.model.pretrained for found in material.analyses]
    return environment.get_template("page.html").render(
        title="Parallel context encoding: " + ", ".join(dict.fromkeys(models)),
        models=list(dict.fromkeys(models)),
        sections=sections,
        warnings=warnings(material),
        style=Markup((_ASSETS / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
        version=__version__,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
