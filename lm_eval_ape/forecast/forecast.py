"""A forecast: all that is known of a run before it is started, as a table and as one line of JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_ape.engine.operations import ModelShape
from lm_eval_ape.forecast.measuring import Stopwatch
from lm_eval_ape.forecast.memory import Memory, count_memory
from lm_eval_ape.forecast.parts import Part
from lm_eval_ape.forecast.resident import resident_bytes
from lm_eval_ape.forecast.weightless import WeightlessApeHFLM
from lm_eval_ape.harness.model_facts import device_name
from lm_eval_ape.prompts.prompt import Prompt

logger = logging.getLogger(__name__)

ALWAYS = (
    "loading the model, drawing the bootstrap and writing files take seconds that are not counted",
    "nothing that an earlier run has kept is taken off",
    "generated tokens and continuations are counted up to their limit, and a run that ends them earlier takes less",
    "one process is counted: N of them take about the Nth part of the time, each with the same memory",
)
"""What every forecast leaves out."""


@dataclass(frozen=True)
class Row:
    """A part of the run.

    Attributes:
        name: What is done.
        prompts: Prompts that it reads.
        tokens: Tokens of these prompts, each counted whole.
        new_tokens: Tokens that follow them at most.
        operations: Floating-point operations.
        seconds: On this device.
    """

    name: str
    prompts: int
    tokens: int
    new_tokens: int
    operations: float
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        command: `calibrate` or `compare`.
        device: The device in words.
        dtype: The weights' precision.
        prompts: Prompts that the run reads.
        tokens: Their tokens.
        rows: The parts of the run.
        cutting_seconds: What building and cutting the prompts took.
        memory: Weights, keys and values, and peak of the model alone.
        process_bytes: What the process holds without a model; on a GPU that is memory of the host.
        depths: Layers of the models that were measured.
        measuring_seconds: How long building and measuring them took.
        not_counted: What is left out, in words.
    """

    command: str
    device: str
    dtype: str
    prompts: int
    tokens: int
    rows: Sequence[Row]
    cutting_seconds: float
    memory: Memory
    process_bytes: int
    depths: Sequence[int]
    measuring_seconds: float
    not_counted: Sequence[str]

    @property
    def operations(self) -> float:
        """Of all parts."""
        return sum(row.operations for row in self.rows)

    @property
    def seconds(self) -> float:
        """Of all parts, and of cutting the prompts."""
        return self.cutting_seconds + sum(row.seconds for row in self.rows)

    @property
    def peak_bytes(self) -> int:
        """The peak on the device; on a CPU the process is there too."""
        on_host = self.process_bytes if self.device.startswith("cpu") else 0
        return self.memory.peak + on_host

    def as_json(self) -> str:
        """One line for scripts."""
        content: dict[str, Any] = {
            "command": self.command,
            "prompts": self.prompts,
            "tokens": self.tokens,
            "operations": round(self.operations),
            "weights_bytes": self.memory.weights,
            "kv_bytes": self.memory.kv,
            "peak_bytes": self.peak_bytes,
            "process_bytes": self.process_bytes,
            "seconds": round(self.seconds, 3),
            "device": self.device,
            "dtype": self.dtype,
            "measured": {"layers": list(self.depths), "seconds": round(self.measuring_seconds, 3)},
            "parts": [
                {**vars(row), "operations": round(row.operations), "seconds": round(row.seconds, 3)}
                for row in self.rows
            ],
            "not_counted": list(self.not_counted),
        }
        return json.dumps(content)


def make_forecast(
    lm: WeightlessApeHFLM,
    command: str,
    parts: Sequence[Part],
    *,
    read: Sequence[Prompt],
    cutting_seconds: float,
    not_counted: Sequence[str] = (),
) -> Forecast | None:
    """Count the parts of a run, and measure what they take on this device.

    Args:
        lm: The model without weights, which has cut the prompts.
        command: The command that would run.
        parts: The parts, each with at least one item.
        read: The prompts that the run reads.
        cutting_seconds: What building and cutting them took.
        not_counted: What the parts leave out, in words.

    Returns:
        The forecast of one process; None on every process but the first.

    Raises:
        ApeError: The model cannot be served under the settings of a part.
    """
    if lm.rank != 0:
        return None
    process = resident_bytes()
    shape = ModelShape.of(lm.model)
    stopwatch = Stopwatch(lm, len(parts))
    rows = []
    for part in parts:
        logger.info("Measuring on random weights: %s", part.name)
        prompts = part.prompts if part.reads else []
        rows.append(
            Row(
                part.name,
                part.times * len(prompts),
                part.times * sum(len(prompt.ids) for prompt in prompts),
                part.times * sum(part.new(item) for item in part.items),
                part.total(shape),
                stopwatch.time(part),
            )
        )
    return Forecast(
        command,
        device_name(stopwatch.models[0]),
        str(lm.model.dtype),
        len(read),
        sum(len(prompt.ids) for prompt in read),
        rows,
        cutting_seconds,
        count_memory(lm.model, parts),
        process,
        stopwatch.depths,
        stopwatch.seconds,
        [*lm.not_counted, *not_counted, *ALWAYS],
    )
