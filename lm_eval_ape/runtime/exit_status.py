"""How a command ends: done, by a mistake that is reported in a sentence, or stopped, with a word on how to go on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lm_eval_ape.display.escaping import one_line
from lm_eval_ape.errors import ApeError
from lm_eval_ape.runtime.finished_work import what_is_kept
from lm_eval_ape.runtime.interruption import Interrupted, interruptible
from lm_eval_ape.runtime.processes import is_first, launched, sentence, telling_others

MISTAKE = 2


def exit_status(name: str, command: Sequence[str], work: Callable[[], int]) -> int:
    """Do a command's work.

    Args:
        name: What the sentences begin with.
        command: What starts the same work again.
        work: Does it, and returns the status of a command that has come to its end.

    Returns:
        That status; 2 where an `ApeError` came, the system refused a file or a hub could not be reached, 130 after
        Ctrl-C and 143 after SIGTERM, each with its sentence on stderr.
    """
    try:
        with interruptible(), telling_others(name), _refusals_told():
            return work()
    except ApeError as error:
        if told := sentence(name, error):
            print(one_line(told), file=sys.stderr)
        return MISTAKE
    except Interrupted as stop:
        # Of several processes the first one speaks.
        if is_first():
            # Below a progress bar, which has not ended its line.
            print(
                f"\n{name}: stopped by {stop.name}. {_kept(stop.folders)} To go on: {_again(command)}", file=sys.stderr
            )
        return stop.status


@contextmanager
def _refusals_told() -> Iterator[None]:
    """Say in a sentence that the system refused a file, or that a hub cannot be reached.

    Other errors of the system name no path or address of the user's, and pass.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except ConnectionError as error:
        raise ApeError(
            f"{error}. Connect to it, fill the cache of Hugging Face from where it can be reached, or name tasks and "
            "models that lie in folders of yours."
        ) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise ApeError(
            f"{error.filename} cannot be used: {error.strerror}. Check the path, its rights and its disk's space."
        ) from error


def _kept(folders: Sequence[Path]) -> str:
    outer = [one for one in folders if not any(other in one.parents for other in folders)]
    if not outer:
        return "No folder was being written, so nothing is kept."
    kept = {folder: what_is_kept(folder) for folder in dict.fromkeys(outer)}
    return " ".join(
        f"Finished and kept in {folder}: {found}." if found else f"Nothing is finished yet in {folder}."
        for folder, found in kept.items()
    )


def _again(command: Sequence[str]) -> str:
    _, processes = launched()
    return shlex.join(command) + (f" (in {processes} processes, as before)" if processes > 1 else "")
