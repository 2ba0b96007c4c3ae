"""Layers on several devices (`parallelize=True`), on devices that only say that they are others (see `devices.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import devices, tiny
from helpers.everything import WORK
from lm_eval_ape.analysis.attention import look
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.scoring import Scorer
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import ask
from lm_eval_ape.encoding.devices import input_device, layer_devices
from lm_eval_ape.encoding.kv_store.store import StoreLimits, open_store
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.prompts.prompt import Prompt

FIRST, SECOND = torch.device("cuda:0"), torch.device("cuda:1")
WHERE = [FIRST, SECOND, SECOND]
PLACES = {
    "model.embed_tokens": FIRST,
    "model.rotary_emb": FIRST,
    **{f"model.layers.{number}": device for number, device in enumerate(WHERE)},
    "model.norm": SECOND,
    "lm_head": SECOND,
}
TOKENIZER = tiny.make_tokenizer(size=300)
PROMPT = Prompt((1, 5, 6), ((7, 8, 9, 10), (11, 12, 13), (14, 15, 16, 17)), (18, 19, 20))


@pytest.fixture(autouse=True)
def several() -> Iterator[None]:
    with devices.devices():
        yield


def load(family: str = "llama", *, laid_out: bool = True, **settings: Any) -> ApeHFLM:
    tokenizer = TOKENIZER
    model = tiny.make_model(family, vocab_size=len(tokenizer))
    # The fused kernels of the CPU make tensors where the stand-in cannot see them.
    model.set_attn_implementation("eager")
    if laid_out:
        devices.lay_out(model, {name: str(device) for name, device in PLACES.items()})
    arguments = {"strategy": "ape", "attn_backend": "eager", **settings}
    return ApeHFLM(pretrained=model, tokenizer=tokenizer, **arguments)


def test_tensors_of_two_devices_do_not_mix() -> None:
    here, there = torch.ones(2, device=FIRST), torch.ones(2).to(SECOND)
    assert (here.device, there.device) == (FIRST, SECOND)
    with pytest.raises(RuntimeError, match="cuda:0, cuda:1"):
        here + there
    with pytest.raises(RuntimeError, match="cpu, cuda:0"):
        here + torch.ones(2)
    assert (here + there.to(FIRST) + 1).tolist() == [3.0, 3.0]


def test_keys_and_values_lie_where_their_layer_is() -> None:
    lm = load(keys_from="sequential")
    assert input_device(lm.model) == FIRST
    assert layer_devices(lm.model, FIRST) == WHERE
    for segment in Engine(lm.model, lm.settings).encode(PROMPT).segments:
        assert [keys.device for keys in segment.keys] == WHERE
        assert [values.device for values in segment.values] == WHERE


def test_kept_keys_and_values_come_back_to_where_their_layer_is(tmp_path: Path) -> None:
    lm = load()
    for _ in range(2):
        store = open_store(lm.model, FIRST, StoreLimits(0, tmp_path, None), facts="")
        segments = Engine(lm.model, lm.settings, store=store).encode(PROMPT).segments
        assert [[keys.device for keys in segment.keys] for segment in segments] == [WHERE, WHERE]
    assert store is not None
    assert (store.counts.disk_hits, store.counts.misses) == (4, 0)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"top_chunks": 2, "select_over": "LHT"}),
        # With a sliding window.
        ("mistral", {"top_chunks": 2}),
    ],
)
def test_layers_on_two_devices_read_as_on_one(family: str, settings: dict[str, Any]) -> None:
    def read(laid_out: bool) -> list[Any]:
        lm = load(family, laid_out=laid_out, **settings)
        points = [Point(0.9, 0.9), Point(0.7, 1.1)]
        teacher = ask(lm, PROMPT.ids, 2, (), "the prompt")
        scorer = Scorer(lm, Objective(2, "own", "continue"))
        scores = scorer.score(lm.engine.encode(PROMPT), PROMPT, teacher, points, sample="the prompt")
        divergences = [score.divergences for score in scores]
        entropy = look(lm, PROMPT, lm.settings).entropy
        return [torch.as_tensor(part) for part in (teacher.log_probs.cpu(), divergences, entropy)]

    for together, apart in zip(read(laid_out=False), read(laid_out=True), strict=True):
        torch.testing.assert_close(apart, together, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"strategy": "sequential"}),
        ("mistral", {"strategy": "ape"}),
        ("llama", {"strategy": "sink", "positions": "serial", "kv_cache_bytes": "1GiB"}),
        ("llama", {"strategy": "sink+selective"}),
        ("mistral", {"strategy": "recompute", "recompute": 0.3}),
        ("llama", {"strategy": "cacheblend", "recompute": 0.3}),
        ("llama", {"strategy": "value_only"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["strategy"],
)
def test_everything_that_is_asked_of_a_model_on_a_gpu_gives_what_a_cpu_gives(
    family: str, settings: dict[str, Any]
) -> None:
    def answers(device: torch.device | None) -> list[Any]:
        model = tiny.make_model(family, vocab_size=len(TOKENIZER))
        model.set_attn_implementation("eager")
        if device:
            devices.place(model, device)
        lm = ApeHFLM(pretrained=model, tokenizer=TOKENIZER, chunks=3, batch_size=2, attn_backend="eager", **settings)
        # Slopes are left out: autograd does not know of these devices.
        return [work(lm) for what, work in WORK.items() if what != "slopes"]

    on_gpu = answers(FIRST)
    on_cpu = answers(None)
    for got, expected in zip(on_gpu, on_cpu, strict=True):
        assert flat(got) == pytest.approx(flat(expected), abs=1e-10)


def flat(value: Any) -> list[Any]:
    """Texts and numbers in nested answers."""
    if isinstance(value, torch.Tensor):
        return flat(value.tolist())
    return [leaf for one in value for leaf in flat(one)] if isinstance(value, (list, tuple)) else [value]
