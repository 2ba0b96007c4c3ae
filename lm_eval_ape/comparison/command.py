"""The harness's own command that runs one strategy of a comparison."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_ape.comparison.options import Options
from lm_eval_ape.harness.specs import Spec


def command(options: Options, spec: Spec) -> str:
    """The harness's own command for one strategy."""
    words = ["lm_eval", "--model", "ape-hf", "--model_args", _pairs(spec.arguments)]
    words += ["--tasks", ",".join(options.tasks), "--batch_size", str(options.batch_size)]
    given: Sequence[tuple[str, Any]] = [
        ("limit", options.limit),
        ("num_fewshot", options.num_fewshot),
        ("device", options.device),
        ("system_instruction", options.system_instruction),
        ("gen_kwargs", _pairs(options.gen_kwargs) or None),
        ("include_path", ",".join(options.include_path) or None),
    ]
    for name, value in given:
        words += [] if value is None else [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    if options.apply_chat_template:
        words.append("--apply_chat_template")
        words += [options.apply_chat_template] if isinstance(options.apply_chat_template, str) else []
    if options.metadata:
        words += ["--metadata", json.dumps(options.metadata)]
    return shlex.join([*words, "--output_path", "out", "--log_samples"])


def _pairs(arguments: Mapping[str, Any]) -> str:
    texts = {
        name: value.replace("\n", "\\n").replace("\t", "\\t") if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    return ",".join(f"{name}={value}" for name, value in texts.items())
