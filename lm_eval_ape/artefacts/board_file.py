"""Reads `board.json` back, for what is made of it later, and writes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_ape.artefacts.board import SCHEMA_VERSION, Board
from lm_eval_ape.artefacts.document import checking
from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import read_json, write_text

FILE_NAME = "board.json"

_MEND = "Run lm-eval-ape compare again."


def read(path: Path) -> Board:
    """Read and check a board.

    Args:
        path: The file.

    Raises:
        ApeError: It cannot be read, is none of ours, or of a newer version.
    """
    content = read_json(path, "board", _MEND)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ApeError(
            f"The board {path} has schema version {version:.20g}, and this lm-eval-ape reads up to {SCHEMA_VERSION}; "
            "update it, or make the board again."
        )
    with checking(f"{path} is no board that this version can read", _MEND):
        return Board.model_validate(content)


def write(folder: Path, board: Board) -> None:
    """Write `board.json`.

    Raises:
        ApeError: It cannot be written.
    """
    text = json.dumps(_finite(board.as_json()), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / FILE_NAME, text + "\n")


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have; a metric of some task may be NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
