"""Which samples are held out together."""

from __future__ import annotations

import pytest

from lm_eval_ape.calibration.gradient.folds import part
from lm_eval_ape.errors import ApeError


@pytest.mark.parametrize("samples", [4, 7, 32])
def test_every_sample_is_in_one_fold(samples: int) -> None:
    folds = part(samples, folds=4, seed=1)
    assert sorted(number for fold in folds for number in fold) == list(range(samples))
    sizes = [len(fold) for fold in folds]
    assert len(folds) == 4
    assert max(sizes) - min(sizes) <= 1


def test_the_same_seed_parts_alike_and_another_one_does_not() -> None:
    first, again, other = (part(32, folds=4, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_of_few_samples_each_is_a_fold() -> None:
    assert sorted(part(3, folds=4, seed=0)) == [(0,), (1,), (2,)]


def test_a_single_sample_is_told() -> None:
    with pytest.raises(ApeError, match=r"There are 1 samples: a fit is held against samples that it did not see"):
        part(1, folds=4, seed=0)
