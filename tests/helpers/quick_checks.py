"""Checks of scoring and selection for `mutations.py`: references are computed once, what is checked again each time."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from test_exactness import query_logits, reference
from test_selection import CHUNKS, LONG_QUERY, MANY, prompt_of, tokens

from helpers import tiny
from lm_eval_ape.attention.selection import SELECT_OVER
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.engine.decoding import end_tokens
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.settings.strategy import resolve


@cache
def _divergences() -> ModuleType:
    """The module of tests that has the slow reference."""
    path = Path(__file__).parents[1] / "calibration" / "test_kl.py"
    spec = importlib.util.spec_from_file_location("slow_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _scores() -> tuple[ApeHFLM, list[tuple[Objective, list[list[tuple[float, int]]]]]]:
    """A model whose sequences may end early, and each objective's divergences and positions by the slow reference."""
    tests = _divergences()
    folder = tempfile.mkdtemp(prefix="lm_eval_ape_")
    lm = ApeHFLM(tiny.save_checkpoint(Path(folder), dtype=torch.float64), dtype="float64", device="cpu")
    lm.model.generation_config.eos_token_id = [tests.frequent_token(lm)]
    found = []
    for history in ("own", "teacher"):
        for after_eos in ("stop", "continue"):
            slow = tests.SlowReference(lm, end_tokens(lm) if after_eos == "stop" else ())
            rows = [[slow.kl(one.prompt, point, 4, history) for point in tests.POINTS] for one in tests.SAMPLES]
            found.append((Objective(4, history, after_eos), rows))
    return lm, found


def scores() -> None:
    """Every objective's divergences and positions are the slow reference's, in batches of any size."""
    lm, expected = _scores()
    tests = _divergences()
    for number, (objective, rows) in enumerate(expected):
        meter = Meter(lm, objective, max_rows=(None, 3)[number % 2], cache=None)
        measured = meter.measure(tests.SAMPLES, tests.POINTS)
        assert measured.positions.tolist() == [[count for _, count in row] for row in rows]
        assert np.allclose(measured.kl, [[kl for kl, _ in row] for row in rows], atol=1e-9, rtol=0)


@cache
def _selections() -> tuple[Any, list[Any], list[tuple[Any, list[Any], list[torch.Tensor]]]]:
    model = tiny.make_model()
    prompts = [prompt_of(MANY, query=LONG_QUERY), prompt_of(CHUNKS, query=tokens(2, 36))]
    found = []
    for over in SELECT_OVER:
        settings = resolve({"strategy": "sink+selective", "select_over": over})
        encoded_prompts = [Engine(model, settings).encode(prompt) for prompt in prompts]
        found.append((settings, encoded_prompts, [reference(model, prompt, settings)[0] for prompt in prompts]))
    return model, prompts, found


def selections() -> None:
    """A padded batch of two prompts reads what Algorithm 1 written as loops reads."""
    model, prompts, expected = _selections()
    for settings, encoded_prompts, references in expected:
        for got, one in zip(query_logits(model, encoded_prompts, prompts, settings), references, strict=True):
            assert (got - one).abs().max() < 1e-12
