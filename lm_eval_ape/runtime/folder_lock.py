"""One run at a time in a folder: the second learns who is there, and a killed one leaves no lock behind."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from lm_eval_ape.errors import ApeError
from lm_eval_ape.runtime.interruption import Interrupted
from lm_eval_ape.runtime.processes import is_first
from lm_eval_ape.storage.files import clear_drafts, make_folder, write_text

# The lock itself is the operating system's and goes with its process; the file beside it only says whose it is.
LOCK_NAME, HOLDER_NAME = ".lm-eval-ape.lock", ".lm-eval-ape.holder.json"


@contextmanager
def hold(folder: str | Path, command: Sequence[str] = ()) -> Iterator[Path]:
    """Be the only run that writes to a folder while the context lasts, and clear what killed ones left half written.

    The processes of a distributed run share the lock of the first one. Who only reads a folder needs no lock.

    Args:
        folder: The folder, made if it does not exist.
        command: What was called, for another run that finds the folder held; by default this process's own command.

    Yields:
        The folder.

    Raises:
        ApeError: Another run holds it, or it cannot be written to; nothing has been done then.
    """
    path = make_folder(folder)
    if not is_first():
        yield path
        return
    lock = FileLock(path / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ApeError(
            f"{path} is being written by another run: {_holder(path)}. Wait until it ends, stop it, or choose another "
            "folder."
        ) from None
    except OSError as error:
        raise ApeError(
            f"The folder {path} cannot be written to: {error.strerror or error}. Choose another one, or make it "
            "writable."
        ) from error
    try:
        clear_drafts(path)
        write_text(path / HOLDER_NAME, json.dumps(_own(command)) + "\n")
        yield path
    except Interrupted as stop:
        stop.folders.append(path)
        raise
    finally:
        with suppress(OSError):
            (path / HOLDER_NAME).unlink(missing_ok=True)
        lock.release()


def _own(command: Sequence[str]) -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(command or sys.orig_argv),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _holder(folder: Path) -> str:
    """Who holds the folder, as far as it can be read."""
    try:
        own = json.loads((folder / HOLDER_NAME).read_text(encoding="utf-8"))
        return f"process {own['pid']} on {own['host']}, since {own['since']}, `{own['command']}`"
    except (OSError, ValueError, TypeError, KeyError):
        return "it has not yet said who it is"
