"""Folders that are made before work starts, and files that are written whole or not at all, and read back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lm_eval_ape.errors import ApeError


def make_folder(path: str | Path) -> Path:
    """The folder, made if it does not exist; `~` is the user's.

    Raises:
        ApeError: It cannot be made.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ApeError(f"The folder {folder} cannot be made: {error}") from error
    return folder


def draft_of(path: Path) -> Path:
    """Where to write a file before it gets its name by `os.replace`: nobody ever sees half a file under that name."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def write_text(path: Path, text: str) -> None:
    """Write a file; an older one stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def read_json(path: Path, what: str, mend: str = "") -> Any:
    """What a JSON file holds; whether it is what was expected is for the caller to say.

    Args:
        path: The file.
        what: What it is, for the error: `calibration`.
        mend: What to do if it cannot be read: a sentence.

    Raises:
        ApeError: It is missing, or no JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ApeError(f"The {what} {path} cannot be read: {error}{mend and f'. {mend}'}") from error
