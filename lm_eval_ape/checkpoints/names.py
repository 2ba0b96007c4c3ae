"""From the model that was named to the files that hold it, and to the name that it is known by."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lm_eval_ape.checkpoints.smollm2 import SMOLLM2, fetched_smollm2, smollm2_file
from lm_eval_ape.errors import ApeError
from lm_eval_ape.pocket import POCKET, pocket_folder, pocket_path

_SUFFIX = ".gguf"


def located(pretrained: str, gguf_file: str | None = None) -> dict[str, str]:
    """Where a named model lies, as transformers takes it.

    Args:
        pretrained: `pocket`, `smollm2`, a GGUF file, a folder, or a name on the hub.
        gguf_file: A GGUF file in that folder or repository.

    Returns:
        `pretrained`, and `gguf_file` if the model is one.

    Raises:
        ApeError: A GGUF file is not there, two are named, `smollm2` has not been fetched, or the package that reads
            such files is not installed.
    """
    if pretrained == POCKET:
        return {"pretrained": str(pocket_path())}
    where = {"pretrained": pretrained}
    if pretrained == SMOLLM2 or pretrained.endswith(_SUFFIX):
        if gguf_file is not None:
            raise ApeError(f"pretrained={pretrained} and gguf_file={gguf_file} both name a GGUF file; drop one.")
        file = fetched_smollm2() if pretrained == SMOLLM2 else Path(pretrained).expanduser()
        if not file.is_file():
            raise ApeError(
                f"pretrained={pretrained} is no file; give the path of a GGUF file, or of one in a repository on the "
                "hub as pretrained=REPOSITORY,gguf_file=FILE."
            )
        where, gguf_file = {"pretrained": str(file.parent)}, file.name
    if gguf_file is None:
        return where
    if find_spec("gguf") is None:
        raise ApeError(f"{gguf_file} is read by the package gguf: pip install 'lm-eval-ape[gguf]'.")
    return {**where, "gguf_file": gguf_file}


def model_name(pretrained: str, gguf_file: str | None = None) -> str:
    """The name that a model is known by, however it was named.

    Args:
        pretrained: As for `located`.
        gguf_file: As for `located`.

    Returns:
        `pocket` and `smollm2` for these two wherever they lie, a local path in full, a hub name as it is.
    """
    if pretrained in (POCKET, SMOLLM2):
        return pretrained
    path = Path(pretrained).expanduser()
    exists = path.exists()
    whole = (path / (gguf_file or "")).resolve()
    if whole == pocket_folder():
        return POCKET
    if whole == smollm2_file().resolve():
        return SMOLLM2
    if exists:
        return str(whole)
    return pretrained if gguf_file is None else f"{pretrained}/{gguf_file}"
