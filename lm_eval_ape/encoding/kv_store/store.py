"""The store of encoded pieces: first memory, then disk, with counts of what was found where."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from lm_eval_ape.artefacts.model_digest import code_versions, full_digest
from lm_eval_ape.encoding.devices import layer_devices
from lm_eval_ape.encoding.kv_store.disk import DiskStore
from lm_eval_ape.encoding.kv_store.memory import MemoryStore
from lm_eval_ape.encoding.piece_layers import Layers
from lm_eval_ape.encoding.pieces import Piece
from lm_eval_ape.settings.option_values import byte_size
from lm_eval_ape.storage.files import make_folder

# Enough for hundreds of long contexts of a large model, and no danger to a disk that holds its weights.
DEFAULT_DIR_BYTES = "50GiB"


@dataclass
class Counts:
    """What happened to pieces (prefixes and chunks) that were asked for.

    Attributes:
        memory_hits: Found in memory.
        disk_hits: Found on disk.
        misses: Encoded.
        hit_tokens: Tokens that were not encoded again.
        miss_tokens: Tokens that were encoded.
    """

    memory_hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    hit_tokens: int = 0
    miss_tokens: int = 0


class KVStore:
    """Keys and values of pieces, by all that they depend on.

    That is the model (its weights on disk, itself in memory), its precision and device, the code that runs it, the
    kernels asked for, and of the piece its tokens, their positions and the shared prefix before them. T, S and whatever
    else says how a query reads is no part of it: strategies with the same chunks find each other's.

    Args:
        model: The model in words, the same only for the same keys and values.
        memory: The part in memory, if any.
        disk: The part on disk, if any.
        devices: Device of each layer.
    """

    def __init__(
        self, model: str, memory: MemoryStore | None, disk: DiskStore | None, devices: list[torch.device]
    ) -> None:
        self.model = model
        self.memory = memory
        self.disk = disk
        self.devices = devices
        self.counts = Counts()

    def get(self, piece: Piece, backend: str) -> Layers | None:
        """A piece's keys and values, from memory or else from disk (and then in memory too)."""
        key = self._key(piece, backend)
        layers = None if self.memory is None else self.memory.get(key)
        if layers is not None:
            self.counts.memory_hits += 1
        elif self.disk and (layers := self.disk.get(key, self.devices)) is not None:
            self.counts.disk_hits += 1
            if self.memory is not None:
                self.memory.put(key, layers)
        if layers is None:
            self.counts.misses += 1
            self.counts.miss_tokens += len(piece)
        else:
            self.counts.hit_tokens += len(piece)
        return layers

    def put(self, piece: Piece, backend: str, layers: Layers) -> None:
        """Keep a piece's keys and values, unless they are broken: another run must not be served them."""
        if not all(torch.isfinite(tensor).all() for pair in layers for tensor in pair):
            return
        key = self._key(piece, backend)
        if self.memory is not None:
            self.memory.put(key, layers)
        if self.disk:
            self.disk.put(key, layers)

    def clear_memory(self) -> bool:
        """Give memory back; whether there was any to give."""
        if self.memory is None or not len(self.memory):
            return False
        self.memory.clear()
        return True

    def record(self) -> dict[str, Any]:
        """Limits, bytes and counts, for the results."""
        return {
            "memory_limit_bytes": 0 if self.memory is None else self.memory.limit,
            "memory_bytes": 0 if self.memory is None else self.memory.bytes,
            "dir": str(self.disk.folder) if self.disk else None,
            "dir_limit_bytes": self.disk.limit if self.disk else None,
            "dir_bytes": self.disk.bytes if self.disk else 0,
            "damaged_or_unwritten": self.disk.warned if self.disk else 0,
            **asdict(self.counts),
        }

    def _key(self, piece: Piece, backend: str) -> str:
        return hashlib.sha256(f"{self.model} {backend} {piece.key}".encode()).hexdigest()


class StoreLimits(NamedTuple):
    """Where encoded chunks are kept, and how many bytes of them.

    Attributes:
        memory_bytes: Most bytes in memory, on the model's own devices; 0 for none.
        folder: Folder for the part on disk; None for none.
        folder_bytes: Most bytes there; None for no limit.
    """

    memory_bytes: int
    folder: Path | None
    folder_bytes: int | None

    @classmethod
    def read(cls, memory: int | str, folder: str | None, folder_bytes: int | str | None) -> StoreLimits:
        """Check model arguments, and make the folder.

        Raises:
            ApeError: A size is none, or the folder cannot be made.
        """
        return cls(
            byte_size("kv_cache_bytes", memory),
            make_folder(folder) if folder else None,
            None if folder_bytes is None else byte_size("kv_cache_dir_bytes", folder_bytes),
        )


def open_store(model: PreTrainedModel, device: torch.device, limits: StoreLimits, *, facts: str) -> KVStore | None:
    """A store for a model; None where neither memory nor a folder is given.

    Args:
        model: The model.
        device: Where its input goes.
        limits: Where chunks are kept.
        facts: What else the model's arithmetic depends on, such as its mixed precision.

    Raises:
        ApeError: A folder is given and some weights cannot be read.
        OSError: The folder cannot be made.
    """
    memory_bytes, folder, folder_bytes = limits
    if not memory_bytes and folder is None:
        return None
    # In memory there is one model only, so that its weights need not be read.
    words = "this process" if folder is None else full_digest(model)
    words = f"{words} {model.dtype} {device.type} {facts} {code_versions()}"
    disk = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        disk = DiskStore(folder, folder_bytes)
    return KVStore(words, MemoryStore(memory_bytes) if memory_bytes else None, disk, layer_devices(model, device))
