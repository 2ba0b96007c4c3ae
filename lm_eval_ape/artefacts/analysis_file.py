"""Reads `analysis.json` back, for what is made of it later, and writes it."""

from __future__ import annotations

import json
from pathlib import Path

from lm_eval_ape.artefacts.analysis import SCHEMA_VERSION, Analysis
from lm_eval_ape.artefacts.document import checking
from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import read_json, write_text

FILE_NAME = "analysis.json"

_MEND = "Run lm-eval-ape analyze again."


def read(path: Path) -> Analysis:
    """Read and check an analysis.

    Raises:
        ApeError: The file cannot be read, is none of ours, or of another version.
    """
    content = read_json(path, "analysis", _MEND)
    version = content.get("schema_version", SCHEMA_VERSION) if isinstance(content, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        raise ApeError(
            f"{path} has schema version {version!r:.60}, but this version reads {SCHEMA_VERSION}; make it again, or "
            "use the version of lm-eval-ape that made it."
        )
    with checking(f"{path} is no analysis of `lm-eval-ape analyze`", _MEND):
        return Analysis.model_validate(content)


def write(folder: Path, content: Analysis) -> None:
    """Write `analysis.json`.

    Raises:
        ApeError: It cannot be written.
    """
    text = json.dumps(content.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / FILE_NAME, text + "\n")
