"""Folders that are made before work starts, and files that are written whole or not at all, and read back."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.strict_reading import from_json

# Drafts of other hosts' processes, of which it is not known here whether they live, are dead after so many seconds.
STALE = 3600
_HOST = re.sub(r"[^\w-]", "_", socket.gethostname())[:40]
_DRAFT = re.compile(r"\.([\w-]+)\.(\d+)\.tmp$")


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
    """Where to write a file before it gets its name by `os.replace`: half a file never has that name."""
    return path.with_name(f"{path.name}.{_HOST}.{os.getpid()}.tmp")


def is_draft(path: Path) -> bool:
    """Whether a path is a draft, or lies in a folder that is one."""
    return any(_DRAFT.search(part) for part in path.parts)


def clear_drafts(folder: Path) -> None:
    """Remove the drafts, in a folder and below it, of processes that are no more."""
    for path in folder.rglob("*.tmp"):
        found = _DRAFT.search(path.name)
        if found is None or _is_alive(path, found[1], int(found[2])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _is_alive(draft: Path, host: str, process: int) -> bool:
    """Whether a draft may still be being written."""
    if host == _HOST:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
    try:
        return time.time() - draft.stat().st_mtime < STALE
    except OSError:
        return True


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A draft to write; it gets the file's name when the context ends, and is removed if it ends by an exception.

    Args:
        path: The file.
        durable: Whether the content is on the disk before the name is, so that not even a power cut leaves half a file
            under it; what is checked when it is read, and soon made again, need not wait for the disk.

    Raises:
        OSError: It cannot be written.
    """
    draft = draft_of(path)
    try:
        yield draft
        if durable:
            sync(draft)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    if durable:
        _sync_names(path.parent)


@contextmanager
def whole_files(folder: Path, last: str, *, durable: bool = True) -> Iterator[Path]:
    """A draft folder to write in; when the context ends its files get their places below another one.

    Args:
        folder: Where to.
        last: Pattern of the name of the file that comes last: where it is, all are.
        durable: As for `whole_file`.

    Raises:
        OSError: A file cannot be written.
    """
    draft = draft_of(folder / "files")
    try:
        draft.mkdir(parents=True, exist_ok=True)
        yield draft
        files = [path for path in draft.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: (fnmatch(path.name, last), path)):
            place = folder / path.relative_to(draft)
            place.parent.mkdir(parents=True, exist_ok=True)
            if durable:
                sync(path)
            os.replace(path, place)
            if durable:
                _sync_names(place.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sync_names(folder: Path) -> None:
    """Let a folder's list of names reach the disk, where its file system can do that; its files are whole without."""
    with suppress(OSError):
        sync(folder)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing_told(path: Path) -> Iterator[None]:
    """Say in a sentence that a file could not be written.

    Raises:
        ApeError: An `OSError` came.
    """
    try:
        yield
    except OSError as error:
        raise ApeError(
            f"{path} cannot be written: {error.strerror or error}. What is finished is kept; make room or choose "
            "another folder, and start the same command again."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file; an older one stays whole until the new one is.

    Raises:
        ApeError: It cannot be written.
    """
    with writing_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as draft:
            draft.write_text(text, encoding="utf-8")


def read_json(path: Path, what: str, mend: str = "Make it again, or give another one.", *, finite: bool = True) -> Any:
    """What a JSON file holds; whether it is what was expected is for the caller to say.

    Args:
        path: The file.
        what: What it is, for the error: `calibration`.
        mend: What to do if it cannot be read: a sentence.
        finite: Whether NaN and the infinities, which the harness writes, are refused.

    Raises:
        ApeError: It is missing, or no JSON in UTF-8 that says one thing plainly (see `strict_reading.from_json`).
    """
    try:
        return from_json(path.read_bytes(), finite=finite)
    except (OSError, ValueError) as error:
        raise ApeError(f"The {what} {path} cannot be read: {reason(error)}. {mend}") from error


def reason(error: Exception) -> str:
    """Why something could not be read, without the path that the sentence around it names."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return told.rstrip(".")
