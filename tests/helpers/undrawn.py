"""A report's page without the drawing of its figures, which takes most of its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from lm_eval_ape.artefacts.analysis import Analysis
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.report.material import Found, Material
from lm_eval_ape.report.page import render
from lm_eval_ape.report.section import Drawn, Figures


class Undrawn(Figures):
    """Builds figures without saving them, which takes most of a report's time."""

    def __init__(self) -> None:
        super().__init__(Path())

    def add(self, name: str, figure: Figure, *, alt: str, caption: str) -> Drawn:
        return Drawn(Markup("<svg></svg>"), alt, caption, {}, False)


def page(**contents: Any) -> str:
    """The page of a `board`, a `calibration` and an `analysis`, of each at most one."""
    models = {"board": Board, "calibration": Calibration, "analysis": Analysis}
    typed = {name: models[name].model_validate(content) for name, content in contents.items()}
    found = {name: (Found(Path("x.json"), "x", content),) for name, content in typed.items()}
    return render(Material(*(found.get(name, ()) for name in ("board", "calibration", "analysis"))), Undrawn())
