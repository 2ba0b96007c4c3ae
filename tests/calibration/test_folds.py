"""Which samples fit, stop and choose the penalty."""

from __future__ import annotations

import pytest

from lm_eval_ape.calibration.gradient.folds import part
from lm_eval_ape.errors import ApeError


@pytest.mark.parametrize("samples", [4, 7, 32])
def test_every_sample_has_one_task_and_every_fitting_sample_one_fold(samples: int) -> None:
    parts = part(samples, validation_share=0.25, folds=4, seed=1)
    assert sorted((*parts.fitting, *parts.validation)) == list(range(samples))
    assert len(parts.validation) == max(1, round(samples / 4))
    assert sorted(number for fold in parts.folds for number in fold) == list(parts.fitting)
    sizes = [len(fold) for fold in parts.folds]
    assert max(sizes) - min(sizes) <= 1


def test_the_same_seed_parts_alike_and_another_one_does_not() -> None:
    first, again, other = (part(32, validation_share=0.25, folds=4, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.validation != other.validation


def test_without_validation_all_samples_fit() -> None:
    parts = part(5, validation_share=0, folds=0, seed=0)
    assert parts.fitting == tuple(range(5))
    assert (parts.validation, parts.folds) == ((), ())


@pytest.mark.parametrize(("samples", "folds"), [(1, 0), (2, 4)])
def test_too_few_samples_are_told(samples: int, folds: int) -> None:
    with pytest.raises(ApeError, match=f"There are {samples} samples, of which 1 are for validation"):
        part(samples, validation_share=0.25, folds=folds, seed=0)
