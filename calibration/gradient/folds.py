"""Which samples a fit learns from, which stop it, and which choose its penalty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lm_eval_ape.errors import ApeError


class Parts(NamedTuple):
    """Numbers of samples.

    Attributes:
        fitting: Those that are learned from.
        validation: Those that decide when to stop; none to take the least divergence on the fitting samples.
        folds: The fitting samples in parts, each of which is held out once to choose the penalty.
    """

    fitting: tuple[int, ...]
    validation: tuple[int, ...]
    folds: tuple[tuple[int, ...], ...]


def part(samples: int, *, validation_share: float, folds: int, seed: int) -> Parts:
    """Part samples at random.

    Args:
        samples: How many there are.
        validation_share: Share of them for validation, rounded, at least one; 0 for none.
        folds: Parts of the fitting samples; fewer where there are fewer samples, none for 0.
        seed: Of the order.

    Raises:
        ApeError: There are too few samples.
    """
    order = np.random.default_rng(seed).permutation(samples).tolist()
    count = max(1, round(samples * validation_share)) if validation_share else 0
    validation, fitting = sorted(order[:count]), order[count:]
    if len(fitting) < (2 if folds else 1):
        raise ApeError(
            f"There are {samples} samples, of which {count} are for validation: too few are left to fit "
            f"{'and to choose the penalty by cross-validation ' if folds else ''}on. Calibrate on more, or set "
            "--validation_share 0 and a number as --penalty."
        )
    parts = tuple(tuple(sorted(fitting[number::folds])) for number in range(min(folds, len(fitting)))) if folds else ()
    return Parts(tuple(sorted(fitting)), tuple(validation), parts)
