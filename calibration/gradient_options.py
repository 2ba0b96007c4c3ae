"""Options of a calibration by gradient, beside those of every calibration."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from lm_eval_ape.artefacts.points import Granularity
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.options import HarnessOptions, option
from lm_eval_ape.settings.validation import Must

Method = Literal["grid", "gradient", "grid+gradient"]


def _penalty(value: Any) -> Any:
    if value == "auto":
        return None
    return math.inf if value == "inf" else values.number(value)


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError
    return value


Penalty = Annotated[
    Annotated[float, Field(strict=True, ge=0)] | None,
    BeforeValidator(_penalty),
    Must("auto, inf or a number of at least 0"),
]
Bounds = Annotated[
    tuple[Annotated[values.Number, Field(gt=0)], Annotated[values.Number, Field(gt=0)]],
    BeforeValidator(values.listed),
    AfterValidator(_ascending),
    Must("two positive numbers, the smaller one first"),
]


class GradientOptions(HarnessOptions):
    """How T and S are searched for."""

    method: Method = option(
        "grid",
        "grid: measure a grid of (T, S); gradient: descend from (0.9, 0.9); grid+gradient: from the grid's choice",
    )
    granularity: Granularity = option(
        "head", "gradient: T and S of the model, each layer or each head; the finest that is tried"
    )
    prefix_factors: values.Switch = option(False, "gradient: a T and S of its own for the prefix too")
    steps: values.Count = option(32, "gradient: most steps", "N")
    learning_rate: values.Positive = option(
        0.2, "gradient: how far T and S move in a step at most, in their logarithms (default: 0.2)", "RATE"
    )
    patience: values.Count = option(12, "gradient: stop after so many steps that improve no held-out KL", "N")
    penalty: Penalty = option(
        None,
        "gradient: how strongly layers and heads are pulled towards the model-wide value; inf: one value for all "
        "(default: auto, by cross-validation over samples)",
        "auto|NUMBER|inf",
    )
    folds: Annotated[values.WholeNumber, Field(ge=2), Must("a whole number of at least 2")] = option(
        4, "gradient: parts of the samples, each held out once", "N"
    )
    bounds: Bounds = option((0.25, 4.0), "gradient: least and largest T and S (default: 0.25,4)", "LOW,HIGH")
    keep_gib: values.Positive | None = option(
        None,
        "gradient: GiB of encoded contexts kept between steps; others are encoded again "
        "(default: half of the GPU's free memory)",
        "GIB",
    )

    @property
    def by_gradient(self) -> bool:
        """Whether a gradient is descended."""
        return self.method != "grid"

    def check_gradient(self) -> None:
        """Refuse options that the method does not read.

        Raises:
            ApeError: With the sentence.
        """
        given, fields = self.model_fields_set, GradientOptions.model_fields
        own = [name for name in fields if str(fields[name].description).startswith("gradient: ")]
        if not self.by_gradient and (idle := [name for name in own if name in given]):
            raise ApeError(f"{idle[0]} is only read with a gradient; add --method gradient or drop it.")
        if self.method == "gradient" and (idle := [name for name in ("temperatures", "scales") if name in given]):
            raise ApeError(f"{idle[0]} is only read with a grid; use --method grid+gradient or drop it.")
        if self.granularity == "model" and self.penalty is not None:
            raise ApeError("penalty holds layers and heads together; granularity=model has one value for all: drop it.")
