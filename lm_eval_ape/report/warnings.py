"""Sentences for the top of the page about missing and conflicting results."""

from __future__ import annotations

from collections.abc import Iterator

from lm_eval_ape.artefacts.board import Board, Row
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.report.material import Found, Material


def warnings(material: Material) -> list[str]:
    """A sentence for each caveat that a reader must know."""
    found = [sentence for board in material.boards for sentence in _board(board, len(material.boards) > 1)]
    for calibration in material.calibrations:
        found += _calibration(calibration, material)
    if not material.boards:
        found.append("There is no board.json: this page has calibrations only; lm-eval-ape compare makes a board.")
    if not material.calibrations:
        found.append("There is no calibration.json: T and S were not calibrated here; lm-eval-ape calibrate does it.")
    return list(dict.fromkeys(found))


def _board(board: Found[Board], several: bool) -> Iterator[str]:
    where = f"{board.name}: " if several else ""
    content = board.content
    for note in content.notes:
        yield where + note
    if not any(row.kl for row in content.rows):
        yield f"{where}No KL was measured; lm-eval-ape compare --kl_tokens 8 adds it, and runs no strategy again."
    unmeasured = [row.label for row in content.rows if row.costs is None]
    if unmeasured:
        yield f"{where}{', '.join(unmeasured)}: no times and no memory, as lm-eval-ape compare did not run them."
    versions = {repr(sorted(row.versions.items())) for row in content.rows if row.versions}
    if len(versions) > 1:
        yield f"{where}The rows were not all made with the same versions of the software; see Settings."
    devices = {str(row.device) for row in content.rows if row.device}
    if len(devices) > 1:
        yield f"{where}The rows were made on different devices ({', '.join(sorted(devices))}): compare no times."


def _calibration(calibration: Found[Calibration], material: Material) -> Iterator[str]:
    content = calibration.content
    choice = content.choice
    if choice.edges:
        yield (
            f"{calibration.name}: the chosen point lies on the grid's edge ({', '.join(choice.edges)}); the best "
            "one may lie beyond it."
        )
    found = {"temperature": content.stability.temperature, "scale": content.stability.scale}
    unstable = [name for name, parameter in found.items() if not parameter.stable]
    if unstable:
        yield f"{calibration.name}: the choice of {' and '.join(unstable)} is unstable under resampling."
    models = [facts for board in material.boards for row in board.content.rows if (facts := _model(row))]
    if models and content.model.weights_sha256 not in models:
        yield (
            f"{calibration.name}: it was made for other weights ({content.model.pretrained}, "
            f"{content.model.dtype}) than those of any row of the board."
        )


def _model(row: Row) -> str | None:
    facts = (row.identity or {}).get("model", {})
    return facts.get("weights_sha256")
