"""Options of a calibration by gradient, beside those of every calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.options import HarnessOptions, about

GRANULARITIES = ("model", "layer", "head")
METHODS = ("grid", "gradient", "grid+gradient")


def _number(name: str, value: Any) -> float:
    found = values.numbers(name, value)
    if len(found) != 1 or not found[0] > 0:
        raise ApeError(f"{name} must be a positive number, but got {value!r}.")
    return found[0]


def _share(name: str, value: Any) -> float:
    found = values.numbers(name, value)
    if len(found) != 1 or not 0 <= found[0] < 1:
        raise ApeError(f"{name} must be a number from 0 to below 1, but got {value!r}.")
    return found[0]


def _penalty(name: str, value: Any) -> float | None:
    if value == "auto":
        return None
    found = values.numbers(name, math.inf if value == "inf" else value)
    if len(found) != 1 or not found[0] >= 0:
        raise ApeError(f"{name} must be auto, inf or a number of at least 0, but got {value!r}.")
    return found[0]


def _bounds(name: str, value: Any) -> tuple[float, float]:
    found = values.numbers(name, value)
    if len(found) != 2 or not 0 < found[0] < found[1] < math.inf:
        raise ApeError(f"{name} must be two positive numbers, the smaller one first, but got {value!r}.")
    return found[0], found[1]


@dataclass(frozen=True, kw_only=True)
class GradientOptions(HarnessOptions):
    """How T and S are searched for."""

    method: str = field(
        default="grid",
        metadata=about(
            values.choice(*METHODS),
            "grid: measure a grid of (T, S); gradient: descend from (0.9, 0.9); grid+gradient: from the grid's choice",
            "grid|gradient|grid+gradient",
        ),
    )
    granularity: str = field(
        default="head",
        metadata=about(
            values.choice(*GRANULARITIES), "gradient: T and S of the model, each layer or each head", "model|layer|head"
        ),
    )
    prefix_factors: bool = field(
        default=False, metadata=about(values.switch, "gradient: a T and S of its own for the prefix too")
    )
    steps: int = field(default=32, metadata=about(values.count(1), "gradient: most steps", "N"))
    learning_rate: float = field(
        default=0.1,
        metadata=about(_number, "gradient: Adam's rate at first, in log T and log S (default: 0.1)", "RATE"),
    )
    patience: int = field(
        default=12, metadata=about(values.count(1), "gradient: stop after so many steps without improvement", "N")
    )
    validation_share: float = field(
        default=0.25,
        metadata=about(_share, "gradient: share of the samples that decide when to stop (default: 0.25)", "SHARE"),
    )
    penalty: float | None = field(
        default=None,
        metadata=about(
            _penalty,
            "gradient: how strongly layers and heads are pulled towards the model-wide value; inf: one value for all "
            "(default: auto, by cross-validation over samples)",
            "auto|NUMBER|inf",
        ),
    )
    folds: int = field(default=4, metadata=about(values.count(2), "gradient: parts of that cross-validation", "N"))
    bounds: tuple[float, float] = field(
        default=(0.25, 4.0),
        metadata=about(_bounds, "gradient: least and largest T and S (default: 0.25,4)", "LOW,HIGH"),
    )
    keep_gib: float | None = field(
        default=None,
        metadata=about(
            _number,
            "gradient: GiB of encoded contexts kept between steps; others are encoded again "
            "(default: half of the GPU's free memory)",
            "GIB",
        ),
    )

    @property
    def by_gradient(self) -> bool:
        """Whether a gradient is descended."""
        return self.method != "grid"

    def check_gradient(self, given: Mapping[str, Any]) -> None:
        """Refuse options that the method does not read.

        Raises:
            ApeError: With the sentence.
        """
        own = [option.name for option in fields(GradientOptions) if option.metadata["help"].startswith("gradient: ")]
        if not self.by_gradient and (idle := [name for name in own if name in given]):
            raise ApeError(f"{idle[0]} is only read with a gradient; add --method gradient or drop it.")
        if self.method == "gradient" and (idle := [name for name in ("temperatures", "scales") if name in given]):
            raise ApeError(f"{idle[0]} is only read with a grid; use --method grid+gradient or drop it.")
        if self.by_gradient and given.get("history") == "own":
            raise ApeError(
                "history=own has no gradient: which token is the greedy one changes in jumps with T and S. "
                "Use --history teacher, which is the default with a gradient, or --method grid."
            )
        if self.granularity == "model" and given.get("penalty") is not None:
            raise ApeError("penalty holds layers and heads together; granularity=model has one value for all: drop it.")
