"""Tensors in safetensors files that are whole or absent, and that say what they are: checked when they are read.

No pickle is ever loaded. A file's checksum is over its tensors, its notes and its format, so that neither a flipped bit
nor a file under another's name is taken for what was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lm_eval_ape.storage.files import whole_files

_ABOUT = "lm-eval-ape"


class Content(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: By name, on the CPU.
        notes: What was written beside them, of JSON types.
    """

    tensors: dict[str, Tensor]
    notes: dict[str, Any]


class DamagedError(ValueError):
    """A file that is damaged, of another version or of something else; the message says which."""


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    form: str,
    key: str,
    notes: Mapping[str, Any] | None = None,
    durable: bool = True,
) -> None:
    """Write tensors; an older file stays whole until the new one is.

    Args:
        path: The file.
        tensors: By name, on any device.
        form: What kind of file it is, and its version.
        key: What it is of: all that the content depends on.
        notes: What else to keep, of JSON types.
        durable: As for `files.whole_file`.

    Raises:
        OSError: It cannot be written.
    """
    own = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    facts = {"format": form, "key": key, "notes": dict(notes or {})}
    # In a draft folder: the library writes to a file of its own beside the one that it is given.
    with whole_files(path.parent, path.name, durable=durable) as draft:
        try:
            # One entry: the library writes several in any order, and the same content should be the same bytes.
            about = json.dumps({**facts, "checksum": checksum(own, facts)})
            save_file(own, draft / path.name, metadata={_ABOUT: about})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read(path: Path, *, form: str, key: str) -> Content:
    """Read tensors back.

    Args:
        path: The file.
        form: What kind of file, and which version, is asked for.
        key: What it must be of.

    Raises:
        FileNotFoundError: There is none.
        DamagedError: It cannot be read, or is not what was asked for.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(json.loads((file.metadata() or {}).get(_ABOUT, "{}")))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DamagedError(str(error)) from error
    if (found := facts.get("format")) != form:
        raise DamagedError(f"it is of another kind or version ({found}, where {form} is read)")
    if facts.get("key") != key:
        raise DamagedError("it was not written for what is asked for")
    if facts.pop("checksum", None) != checksum(tensors, facts):
        raise DamagedError("its content does not match its checksum")
    return Content(tensors, facts["notes"])


def checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Digest of tensors' names, forms and bytes and of what is said of them (XXH3, 128 bits).

    Args:
        tensors: On the CPU, contiguous.
        facts: Said of them, of JSON types.
    """
    digest = xxhash.xxh3_128(json.dumps(dict(facts), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
