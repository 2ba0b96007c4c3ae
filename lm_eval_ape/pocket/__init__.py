"""A small Llama trained on a small world, so that everything can be tried offline."""

from __future__ import annotations

from pathlib import Path

__all__ = ["pocket_path"]


def pocket_path() -> Path:
    """The folder of the shipped checkpoint, for ``pretrained=``.

    Raises:
        FileNotFoundError: if the checkpoint is not there.
    """
    folder = Path(__file__).parent / "model"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"No pocket checkpoint in {folder}: install the package again, or make it with "
            f"`python -m lm_eval_ape.pocket.train --output {folder}`."
        )
    return folder
