"""Pieces kept on disk: one safetensors file each, whole or absent, checked when it is read."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lm_eval_ape.files import draft_of
from lm_eval_ape.kv_store.memory import Layers, size

logger = logging.getLogger(__name__)

# Of the files' form; another version's files are made again.
FORMAT = "lm-eval-ape kv 1"
# Drafts older than this many seconds were left behind by a process that was killed.
STALE = 3600


class DiskStore:
    """The pieces in a folder, which several processes may share.

    Args:
        folder: Where the files lie; it exists.
        limit: Most bytes of all files; those not used for the longest time go first. None for no limit.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.folder = folder
        self.limit = limit
        self.warned = 0
        for draft in folder.glob("*.tmp"):
            if time.time() - _changed(draft) > STALE:
                draft.unlink(missing_ok=True)
        self.bytes = sum(used for _, used, _ in self._files())

    def get(self, key: str, devices: Sequence[torch.device]) -> Layers | None:
        """A piece, each layer on its device; None, with a warning, for a file that is damaged or not ours."""
        path = self._path(key)
        names = [(_name(layer, "keys"), _name(layer, "values")) for layer in range(len(devices))]
        try:
            tensors = _read(path, key, {name for pair in names for name in pair})
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError) as error:
            self._warn("%s is left aside and its tokens are encoded again: %s", path, error)
            return None
        try:
            # Its time of change is when it was last used: that is what decides which files go.
            os.utime(path)
        except OSError:
            logger.debug("%s cannot be marked as used", path)
        return [
            (tensors[keys].to(device), tensors[values].to(device))
            for (keys, values), device in zip(names, devices, strict=True)
        ]

    def put(self, key: str, layers: Layers) -> None:
        """Write a piece; where that fails, say so and go on without."""
        needed = size(layers)
        if self.limit is not None and needed > self.limit:
            return
        tensors = {}
        for layer, (keys, values) in enumerate(layers):
            tensors[_name(layer, "keys")] = keys.contiguous().cpu()
            tensors[_name(layer, "values")] = values.contiguous().cpu()
        notes = {"format": FORMAT, "key": key, "checksum": checksum(tensors)}
        path = self._path(key)
        draft = draft_of(path)
        try:
            save_file(tensors, draft, metadata=notes)
            before = path.stat().st_size if path.exists() else 0
            os.replace(draft, path)
            self.bytes += path.stat().st_size - before
        except (OSError, SafetensorError) as error:
            draft.unlink(missing_ok=True)
            self._warn("Encoded chunks cannot be kept in %s: %s", self.folder, error)
            return
        if self.limit is not None and self.bytes > self.limit:
            self._shrink(self.limit, path)

    def _shrink(self, limit: int, newest: Path) -> None:
        """Remove the files not used for the longest time, but not the one that has just been written."""
        files = sorted(self._files())
        self.bytes = sum(used for _, used, _ in files)
        for _, used, path in files:
            if self.bytes <= limit:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                self.bytes -= used

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its bytes, and its path."""
        files = []
        for path in self.folder.glob("*.safetensors"):
            try:
                facts = path.stat()
            except FileNotFoundError:
                # Another process was quicker.
                continue
            files.append((facts.st_mtime, facts.st_size, path))
        return files

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _warn(self, message: str, *details: object) -> None:
        logger.warning(message, *details)
        self.warned += 1


def _read(path: Path, key: str, names: set[str]) -> dict[str, Tensor]:
    """A file's tensors; a `ValueError` says what is wrong with them."""
    with safe_open(path, framework="pt") as file:
        notes = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if notes.get("format") != FORMAT or notes.get("key") != key:
        raise ValueError("it was not written for these tokens of this model")
    if set(tensors) != names:
        raise ValueError(f"it does not hold the keys and values of {len(names) // 2} layers")
    if notes.get("checksum") != checksum(tensors):
        raise ValueError("its content does not match its checksum")
    return tensors


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Digest of tensors' names, forms and bytes (XXH3, 128 bits)."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _name(layer: int, what: str) -> str:
    return f"{layer}.{what}"


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
