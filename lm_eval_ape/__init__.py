"""Parallel context encoding for EleutherAI's lm-evaluation-harness.

Importing this package imports nothing heavy: it also happens at the start of every Python program, through the hook
that makes `lm_eval --model ape-hf` work (see `lm_eval_ape.hook`). What it offers to Python is imported when it is
first asked for.
"""

from lm_eval_ape.version import __version__

# As in `typing`, which would cost every start of Python a millisecond.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from lm_eval_ape.parallel_model import ParallelModel, analyze, calibrate, compare

__all__ = ["ParallelModel", "__version__", "analyze", "calibrate", "compare"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lm_eval_ape import parallel_model

    return getattr(parallel_model, name)
