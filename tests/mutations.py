"""Mutation checks: every small wrong change of the modules that make the numbers must fail a test (`make mutations`).

Everything is imported once; each mutant then runs in a fork of this process, so that it costs its tests alone. Run as
`python tests/mutations.py [MODULE ...] [--jobs N] [--list]`. Exits with status 1 if a mutant survives that is not known
to be equivalent, or if one that is known to be does not survive any more.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402
from test_mutants import CHECKS  # noqa: E402

from helpers.equivalent_mutants import EQUIVALENT, reason  # noqa: E402
from helpers.mutants import Mutant, mutants, running, source_of  # noqa: E402
from helpers.quick_checks import scores, selections  # noqa: E402

# What fails soonest: references are computed once, before the first fork.
QUICK = {
    **CHECKS,
    "lm_eval_ape.attention.selection": (*CHECKS["lm_eval_ape.attention.selection"], selections),
    "lm_eval_ape.calibration.grid.scoring": (scores,),
}
# The tests of each module, those that fail soonest first.
MODULES: dict[str, tuple[str, ...]] = {
    "lm_eval_ape.attention.merge": ("test_merge.py", "test_attention_gradient.py"),
    "lm_eval_ape.calibration.objective.divergence": ("calibration/test_divergence.py", "calibration/test_kl.py"),
    "lm_eval_ape.calibration.grid.scoring": ("calibration/test_kl.py",),
    "lm_eval_ape.comparison.statistics": ("comparison/test_statistics.py",),
    "lm_eval_ape.calibration.grid.stability": ("calibration/test_stability.py",),
    "lm_eval_ape.attention.selection": ("test_selection.py", "test_strategy.py"),
}
# Seconds of the processor after which a mutant that never ends counts as killed.
PATIENCE = 300


class Outcome(NamedTuple):
    """What became of a mutant."""

    module: str
    mutant: Mutant
    killed: bool


def tried(module: str, mutant: Mutant) -> int:
    """Start a process that runs a mutant's tests; its exit status is 0 if they pass."""
    child = os.fork()
    if child:
        return child
    status = 2
    try:
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        sink = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(sink, stream)
        with running(importlib.import_module(module), mutant.source):
            status = tested(module)
    finally:
        os._exit(status)


def tested(module: str) -> int:
    """Run a module's quick checks and then its tests, file by file, until one fails; 0 if none does."""
    try:
        for check in QUICK[module]:
            check()
    except Exception:
        return 1
    for file in MODULES[module]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", str(HERE / file)]))
        if status:
            return status
    return 0


def all_of(names: Sequence[str]) -> list[tuple[str, Mutant]]:
    """Every mutant of some modules."""
    return [(name, mutant) for name in names for mutant in mutants(source_of(importlib.import_module(name)))]


def run(todo: Sequence[tuple[str, Mutant]], jobs: int) -> list[Outcome]:
    """Try mutants, `jobs` at a time, and tell about each as it ends."""
    waiting, alive, outcomes = list(todo), {}, []
    while waiting or alive:
        while waiting and len(alive) < jobs:
            module, mutant = waiting.pop(0)
            alive[tried(module, mutant)] = module, mutant
        child, status = os.wait()
        module, mutant = alive.pop(child)
        outcomes.append(Outcome(module, mutant, status != 0))
        known = reason(module, mutant.diff)
        verdict = "killed" if status else f"survived, equivalent: {known}" if known else "SURVIVED"
        print(f"[{len(outcomes)}/{len(todo)}] {module}:{mutant.line} {mutant.what}: {verdict}", flush=True)
        if not status and not known:
            print(mutant.diff, flush=True)
    return outcomes


def main() -> int:
    """Run the mutants that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(MODULES), metavar="MODULE")
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("JOBS", "2")))
    parser.add_argument("--list", action="store_true", help="list the mutants and run none")
    given = parser.parse_args()
    todo = all_of(given.modules)
    if given.list:
        for module, mutant in todo:
            print(f"{module}:{mutant.line} {mutant.what}\n{mutant.diff}")
        return 0
    torch.set_num_threads(1)
    outcomes: list[Outcome] = []
    for module in given.modules:
        # Mutants mean something only where the module itself passes; and what tests import is here for all forks.
        if tested(module):
            print(f"{module}: its tests fail without any change; run them.")
            return 1
        outcomes += run([one for one in todo if one[0] == module], given.jobs)
    survivors = [one for one in outcomes if not one.killed]
    unknown = [one for one in survivors if not reason(one.module, one.mutant.diff)]
    found = {(one.module, one.mutant.diff) for one in survivors}
    stale = [key for key in EQUIVALENT if key[0] in given.modules and key not in found]
    print(
        f"{len(outcomes)} mutants, {len(outcomes) - len(survivors)} killed, {len(survivors)} survived, of which "
        f"{len(survivors) - len(unknown)} are known to be equivalent."
    )
    for module, diff in stale:
        print(f"Listed as equivalent, but no survivor any more: {module}\n{diff}")
    return 1 if unknown or stale else 0


if __name__ == "__main__":
    sys.exit(main())
