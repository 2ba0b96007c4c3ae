"""A small Llama trained on a small world, so that everything can be tried offline."""

from __future__ import annotations

from pathlib import Path

from lm_eval_ape.errors import ApeError

__all__ = ["POCKET", "pocket_folder", "pocket_path"]

POCKET = "pocket"
"""The shipped model's name: `pretrained=pocket`."""
_FOLDER = Path(__file__).resolve().parent / "model"


def pocket_folder() -> Path:
    """Where the shipped checkpoint belongs."""
    return _FOLDER


def pocket_path() -> Path:
    """The folder of the shipped checkpoint.

    Raises:
        ApeError: It is not there.
    """
    if not (_FOLDER / "model.safetensors").is_file():
        raise ApeError(
            f"No pocket checkpoint in {_FOLDER}: install the package again, or make it in a clone: "
            f"`python experiments/train_pocket.py --output {_FOLDER}`."
        )
    return _FOLDER
