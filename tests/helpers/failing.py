"""Runs `lm-eval-ape calibrate` in processes that nobody watches, and lets one fail: `failing.py FOLDER FLAGS...`.

As on separate machines nobody ends the others, so they must learn of it themselves. What is slow to import is
imported once and the processes are forked from here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from lm_eval_ape.calibration.grid.scoring import Scorer
from lm_eval_ape.calibration.run import Calibration
from lm_eval_ape.cli import main
from lm_eval_ape.errors import ApeError

COUNT = 3


def refuse(*_: Any, **__: Any) -> None:
    raise ApeError("the sample is not to my taste")


def short(*_: Any, **__: Any) -> None:
    raise RuntimeError("something that nobody foresaw")


def killed(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# By name: which processes fail while they score, and how; none where the flags themselves are wrong.
FAILURES: dict[str, tuple[tuple[int, ...], Callable[..., Any] | None]] = {
    "one does not start": ((1,), refuse),
    "one refuses": ((1,), refuse),
    "one breaks": ((1,), short),
    "one is killed": ((2,), killed),
    "the first is killed": ((0,), killed),
    "all refuse": ((0, 1, 2), refuse),
    "flags are wrong": ((), None),
}


def process(rank: int, port: int, name: str, folder: Path, flags: list[str]) -> None:
    """One process; never returns."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(COUNT)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(COUNT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name}.{rank}.{stream}", os.O_WRONLY | os.O_CREAT), number)
    who, how = FAILURES[name]
    if rank in who:
        place, name_there = (Calibration, "run") if name == "one does not start" else (Scorer, "score")
        setattr(place, name_there, how)
    status = 1
    try:
        status = main(["calibrate", *flags, *(["--limit", "none"] if how is None else [])])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(name: str, folder: Path, flags: list[str]) -> list[int]:
    """Exit statuses of a failure's processes; those that are still there after a minute are killed, which tells."""
    # As torchrun's agent on the first machine keeps it for those on all.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children = []
    for rank in range(COUNT):
        if (child := os.fork()) == 0:
            process(rank, store.port, name, folder, flags)
        children.append(child)
    statuses: dict[int, int] = {}
    end = time.monotonic() + 60
    while len(statuses) < COUNT:
        for child in set(children) - set(statuses):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                statuses[child] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.kill(child, signal.SIGALRM)
        time.sleep(0.05)
    return [statuses[child] for child in children]


if __name__ == "__main__":
    torch.set_num_threads(1)
    output = Path(sys.argv[1])
    found = {name: run(name, output, sys.argv[2:]) for name in FAILURES}
    (output / "statuses.json").write_text(json.dumps(found))
