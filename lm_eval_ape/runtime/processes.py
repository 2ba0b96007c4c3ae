"""Several processes on the same work: who does what, what the others found, and what is said when one of them ends.

Started by `torchrun`, `accelerate launch` or the like, each process holds a model of its own and does its share.
Results are exchanged over gloo between CPUs, also where models are on GPUs: a process that has ended closes its
connections, and those that wait for it learn of that at once.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, partialmethod
from typing import Any, TypeVar

from lm_eval_ape.errors import ApeError

Found = TypeVar("Found")

# Where launchers say which process this is and how many there are, in the order in which accelerate asks for it.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# How long a process waits for the slowest one; shares may differ by hours, but not by days.
PATIENCE = timedelta(days=1)
# How long to look for the launcher's store, seconds.
_REACH = 10
# Marks errors that another process has reported to the user.
_TOLD = "_lm_eval_ape_told"


class OtherProcessError(ApeError):
    """What went wrong went wrong in another process."""


class OtherProcessFailed(OtherProcessError):
    """Another process has failed and has said why itself."""


class OtherProcessEnded(OtherProcessError):
    """Another process has ended without a word."""


@dataclass(frozen=True)
class Processes:
    """This process among those that share the work.

    Attributes:
        rank: This one's number.
        count: How many there are.
        group: What they exchange results over; None for a single one.
    """

    rank: int = 0
    count: int = 1
    group: Any = None
    _exchanges: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    def own(self, items: int) -> range:
        """Which of so many items are this process's: every `count`-th, perhaps none."""
        return range(self.rank, items, self.count)

    def gather(self, found: Found) -> list[Found]:
        """What every process found, in the order of their numbers, on all of them.

        Raises:
            ApeError: Another process has ended before it had handed over what it found.
        """
        if self.count == 1:
            return [found]
        import torch.distributed

        self._exchanges[0] += 1
        _write(f"handed over {self._exchanges[0]} {self.rank}", "yes")
        gathered: list[Any] = [None] * self.count
        try:
            torch.distributed.all_gather_object(gathered, found, group=self.group)
        except RuntimeError as error:
            raise self._ended() from error
        return gathered

    def put_together(self, found: Sequence[tuple[int, Found]]) -> list[Found]:
        """What all processes found for numbered items, in the items' order, on all of them (see `gather`)."""
        pairs = [pair for part in self.gather(list(found)) for pair in part]
        return [one for _, one in sorted(pairs, key=lambda pair: pair[0])]

    def from_first(self, value: Found) -> Found:
        """The first process's value, on all of them: for decisions that all must take alike (see `gather`)."""
        return self.gather(value if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def _ended(self) -> ApeError:
        """Why an exchange failed: the processes that did not take part, and what they said."""
        others = [rank for rank in range(self.count) if rank != self.rank]
        if any(_read(f"failed {rank}") for rank in others):
            return OtherProcessFailed("Another process has failed.")
        missing = [rank for rank in others if _store() and not _read(f"handed over {self._exchanges[0]} {rank}")]
        who = f"Process {' or '.join(map(str, missing))}" if missing else "A process"
        return OtherProcessEnded(
            f"{who} of {self.count} ended before it had handed over its results. If it has not said why, it was "
            "killed, perhaps because memory ran out, or lost its connection. What is in the output folder is kept; "
            "start again to go on from there."
        )


@cache
def join() -> Processes:
    """This process among those it was started with; the same one each time.

    Raises:
        ApeError: Another process has failed before it came so far.
    """
    _meet()
    import torch.distributed
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    # The first one decides: the harness's own waits for 52 weeks.
    state = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]).state
    if state.num_processes == 1:
        return Processes()
    group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    atexit.register(_part, group)
    return Processes(state.process_index, state.num_processes, group)


def _part(group: Any) -> None:
    """Close connections while Python still runs.

    Threads of gloo that outlive the interpreter abort the process now and then
    (https://github.com/pytorch/pytorch/pull/179291), and the launcher then ends the others, perhaps before the first
    one has written its results. Other back ends are left to those that chose them.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        whole = torch.distributed.get_backend() == "gloo"
        torch.distributed.destroy_process_group(None if whole else group)


def _meet() -> None:
    """Wait until all processes have come, or one of them has failed: connecting them would wait for it."""
    rank, count = launched()
    if count == 1 or _store() is None:
        return
    _write(f"come {rank}", "yes")
    last = time.monotonic() + PATIENCE.total_seconds()
    while any(_read(f"come {other}") is None for other in range(count)) and time.monotonic() < last:
        if any(_read(f"failed {other}") for other in range(count)):
            raise OtherProcessFailed("Another process has failed.")
        time.sleep(0.1)


def launched() -> tuple[int, int]:
    """Number of this process and how many were started, as the launcher says, before any of them has been joined."""
    rank, count = (next((os.environ[name] for name in names if os.environ.get(name)), "") for names in (_RANKS, _SIZES))
    return int(rank or 0), int(count or 1)


def is_first() -> bool:
    """Whether this is a run's only process, or the first one of several."""
    return launched()[0] == 0


def be_quiet_unless_first() -> None:
    """Leave progress bars, warnings and messages to the first process; errors are everybody's own."""
    rank, count = launched()
    if rank == 0 or count == 1:
        return
    import tqdm.std

    tqdm.std.tqdm.__init__ = partialmethod(tqdm.std.tqdm.__init__, disable=True)  # type: ignore[method-assign, assignment]
    warnings.simplefilter("ignore")
    for name in ("lm_eval", "lm_eval_ape", "transformers", "accelerate", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def telling_others(command: str) -> Iterator[None]:
    """Let the other processes know why this one fails; of several that fail alike, only one reports it.

    An `ApeError` leaves with its sentence reported, or marked as reported (see `sentence`).

    Args:
        command: What the user called, for the sentence.
    """
    rank, count = launched()
    if count == 1:
        yield
        return
    try:
        yield
    except OtherProcessFailed as error:
        setattr(error, _TOLD, True)
        raise
    except ApeError as error:
        # Several may miss the same process, each with other words.
        what = type(error).__name__ if isinstance(error, OtherProcessEnded) else f"{command}: {error}"
        setattr(error, _TOLD, not _first_to_say(what))
        _write(f"failed {rank}", str(error))
        raise
    except Exception as error:
        _write(f"failed {rank}", f"{type(error).__name__}: {error}")
        raise


def sentence(command: str, error: ApeError) -> str | None:
    """What to report of an error; None where another process has reported it."""
    if getattr(error, _TOLD, False):
        return None
    rank, count = launched()
    return f"{command}: {error}" if count == 1 else f"{command} (process {rank} of {count}): {error}"


# The store that torchrun's agent keeps for its processes holds what they must know of each other when they fail. It is
# there before any of them is joined, and stays when one of them ends. Without one, each reports for itself.


@cache
def _store() -> Any:
    """The agent's store; None where there is none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=_REACH), wait_for_workers=False)
    except RuntimeError:
        return None
    return PrefixStore(f"lm_eval_ape {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _write(key: str, value: str) -> None:
    try:
        if store := _store():
            store.set(key, value)
    except RuntimeError:
        logging.getLogger(__name__).debug("the launcher's store has gone")


def _read(key: str) -> str | None:
    try:
        store = _store()
        return store.get(key).decode() if store and store.check([key]) else None
    except RuntimeError:
        return None


def _first_to_say(what: str) -> bool:
    """Whether no process has said this yet."""
    try:
        store = _store()
        return not store or int(store.add(hashlib.sha256(what.encode()).hexdigest(), 1)) == 1
    except RuntimeError:
        return True
