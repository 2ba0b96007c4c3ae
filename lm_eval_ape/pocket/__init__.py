"""A small Llama trained on a small world, so that everything can be tried offline."""

from __future__ import annotations

from pathlib import Path

from lm_eval_ape.errors import ApeError

__all__ = ["POCKET", "model_name", "pocket_path"]

POCKET = "pocket"
"""The shipped model's name: `pretrained=pocket`."""
_FOLDER = Path(__file__).resolve().parent / "model"


def pocket_path() -> Path:
    """The folder of the shipped checkpoint.

    Raises:
        ApeError: It is not there.
    """
    if not (_FOLDER / "model.safetensors").is_file():
        raise ApeError(
            f"No pocket checkpoint in {_FOLDER}: install the package again, or make it with "
            f"`python -m lm_eval_ape.pocket.train --output {_FOLDER}`."
        )
    return _FOLDER


def model_name(pretrained: str) -> str:
    """A model's name: `pocket` for the shipped one wherever it lies, a local path in full, a hub name as it is."""
    path = Path(pretrained).expanduser()
    if pretrained == POCKET or path.resolve() == _FOLDER:
        return POCKET
    return str(path.resolve()) if path.exists() else pretrained
