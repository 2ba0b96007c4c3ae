"""Pieces kept on disk: one file each, whole or absent, checked when it is read (see `tensor_file`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from lm_eval_ape.encoding.piece_layers import Layers, size
from lm_eval_ape.storage import tensor_file
from lm_eval_ape.storage.files import clear_drafts

logger = logging.getLogger(__name__)

# Of the files' form; another version's files are made again.
FORMAT = "lm-eval-ape kv 2"


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
        clear_drafts(folder)
        self.bytes = sum(used for _, used, _ in self._files())

    def get(self, key: str, devices: Sequence[torch.device]) -> Layers | None:
        """A piece, each layer on its device; None, with a warning, for a file that is damaged or not ours."""
        path = self._path(key)
        names = [(_name(layer, "keys"), _name(layer, "values")) for layer in range(len(devices))]
        try:
            tensors = tensor_file.read(path, form=FORMAT, key=key).tensors
            if set(tensors) != {name for pair in names for name in pair}:
                raise tensor_file.DamagedError(f"it does not hold the keys and values of {len(devices)} layers")
        except FileNotFoundError:
            return None
        except tensor_file.DamagedError as error:
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
            tensors[_name(layer, "keys")] = keys
            tensors[_name(layer, "values")] = values
        path = self._path(key)
        try:
            before = path.stat().st_size if path.exists() else 0
            tensor_file.write(path, tensors, form=FORMAT, key=key, durable=False)
            self.bytes += path.stat().st_size - before
        except OSError as error:
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


def _name(layer: int, what: str) -> str:
    return f"{layer}.{what}"
