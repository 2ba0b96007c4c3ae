"""Processes that kill themselves between two writes, or in the middle of one, and folders compared byte for byte.

A test process with a loaded model forks; the child works until its n-th write, which it does not survive.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What two runs of the same work do not share: dates, seconds and bytes of memory, and file names with a date.
VOLATILE = frozenset(
    "created date start_time end_time total_evaluation_time_seconds seconds prefill_seconds scoring_seconds "
    "decode_tokens_per_second peak_memory_bytes peak_memory_of".split()
)
_DATE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d(\.\d+|\+00:00)?")
# Files that say who is at work, and those of journals.
_OWN = ".lm-eval-ape"
_JOURNAL = re.compile(r"\.\d+\.jsonl$")


def killed_before_write(work: Callable[[], Any], number: int, chance: random.Random, log: Path) -> bool:
    """Do work in a forked process that SIGKILL ends at one of its writes.

    A write is a file that gets its name, or a record of a journal. By chance the process dies before it, with a draft
    or a part of a record on the disk, or right after the one before.

    Args:
        work: What to do.
        number: The write that it does not survive, from 1.
        chance: Chooses what of that write is on the disk.
        log: Where a failed child's traceback goes.

    Returns:
        Whether it was killed; otherwise it came to its end.
    """
    share = chance.choice([0.0, chance.random()])
    child = os.fork()
    if not child:
        status = 1
        try:
            _quiet(log)
            _arm(number, share)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, log.read_text(encoding="utf-8")
    return False


def _quiet(log: Path) -> None:
    """Let the child's output go to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)


def _arm(number: int, share: float) -> None:
    """Die before the n-th write: of a record, that share of its bytes is there."""
    left = number
    replace, fsync = os.replace, os.fsync

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def counted_replace(source: Any, target: Any) -> None:
        nonlocal left
        # What is there is only written again, except for states, each of which is a step further.
        new = not os.path.exists(target) or str(target).endswith(".safetensors")
        if new and not Path(target).name.startswith(_OWN):
            left -= 1
            if not left:
                die()
        replace(source, target)

    def counted_fsync(file: int) -> None:
        nonlocal left
        name = os.readlink(f"/proc/self/fd/{file}")
        if _JOURNAL.search(name):
            left -= 1
            if not left:
                before = _whole_but_one(Path(name))
                os.truncate(name, before + int(share * (os.path.getsize(name) - before)))
                die()
        fsync(file)

    os.replace, os.fsync = counted_replace, counted_fsync


def _whole_but_one(file: Path) -> int:
    """Bytes of all lines but the last."""
    return file.read_bytes().rstrip(b"\n").rfind(b"\n") + 1


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path, without what is volatile; drafts are none of it, and must not be there."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name.startswith(_OWN):
            continue
        name = _DATE.sub(b"DATE", str(path.relative_to(folder)).encode()).decode()
        assert ".tmp" not in name
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(_lasting(json.loads(content)), indent=1).encode()
        found[name] = _DATE.sub(b"DATE", content.replace(str(folder.resolve()).encode(), b"FOLDER"))
    return found


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(inner) for name, inner in value.items() if name not in VOLATILE}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value
