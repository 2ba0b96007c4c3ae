"""Which samples are held out together: every sample is in one fold, and one fit in each fold's turn never sees it."""

from __future__ import annotations

import numpy as np

from lm_eval_ape.errors import ApeError

Folds = tuple[tuple[int, ...], ...]
"""Numbers of samples, each in one fold."""


def part(samples: int, *, folds: int, seed: int) -> Folds:
    """Part samples at random.

    Args:
        samples: How many there are.
        folds: In how many parts; fewer where there are fewer samples.
        seed: Of the order.

    Raises:
        ApeError: There are too few samples.
    """
    if samples < 2:
        raise ApeError(
            f"There are {samples} samples: a fit is held against samples that it did not see, which takes two at "
            "least. Calibrate on more, or use --method grid."
        )
    order = np.random.default_rng(seed).permutation(samples).tolist()
    return tuple(tuple(sorted(order[number::folds])) for number in range(min(folds, samples)))
