"""What can be known of a GPU without one: shapes, kernels, memory, operations, and for what the host waits.

Llama-3.1-8B's layers in bfloat16 pass over tensors without numbers that say they lie on a GPU (see `devices.py`). The
tables of docs/results/performance.md: `pytest tests/test_stand_in_gpu.py -m slow -rP`.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel

from helpers import devices, tiny
from helpers.devices import Watch
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.dry_run import PointParts
from lm_eval_ape.calibration.grid.scoring import Scorer
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import ask
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.generating import generating, whole_prompts
from lm_eval_ape.engine.operations import ModelShape
from lm_eval_ape.forecast.memory import count_memory
from lm_eval_ape.forecast.parts import Part
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings, resolve

GPU = torch.device("cuda:0")
POINTS = [Point(0.6 + 0.1 * t, 0.6 + 0.1 * s) for t in range(7) for s in range(7)]
STEPS = 8


def without_numbers(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def gemma_4b(layers: int) -> PreTrainedModel:
    """Gemma 3's layers, of six five with a window of 1,024 tokens."""
    config = Gemma3TextConfig(
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        sliding_window=1024,
        max_position_embeddings=131072,
    )
    return without_numbers(config)


def llama_8b(layers: int) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rope_theta=500000.0,
    )
    return without_numbers(config)


def prompt_of(tokens: int, chunks: int) -> Prompt:
    # Chunks that are the same are encoded once.
    length = tokens // chunks
    parts = tuple(tuple(range(number, number + length)) for number in range(chunks))
    return Prompt(tuple(range(64)), parts, tuple(range(64)))


def attention_operations(
    query: torch.Size, key: torch.Size, value: torch.Size, *rest: Any, out_shape: Any = None, **_: Any
) -> int:
    """Of a fused kernel, whose key heads may be fewer; causal ones leave half of the products out."""
    batch, heads, length, width = query
    return 4 * batch * heads * length * key[2] * width // (2 if any(one is True for one in rest[1:]) else 1)


FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention: attention_operations,
    torch.ops.aten._scaled_dot_product_efficient_attention: lambda query, key, value, bias, lse, *rest, **named: (
        attention_operations(query, key, value, *rest)
    ),
}


@dataclass
class Measured:
    """What a phase took.

    Attributes:
        out: What it returned.
        peak: Bytes.
        kept: Bytes that were there after it and not before.
        operations: Of products of matrices.
        waits: For what the host waited.
        used: The attention kernels.
    """

    out: Any
    peak: int
    kept: int
    operations: int
    waits: Counter[str]
    used: Counter[str]


class Phases:
    """Phases of a calibration on a stand-in GPU.

    Args:
        model: The model.
        watch: What happens on the device.
        settings: How prompts are encoded.
    """

    def __init__(self, model: PreTrainedModel, watch: Watch, settings: Settings) -> None:
        self.model, self.watch = model, watch
        self.engine = Engine(model, settings)
        self.lm: Any = SimpleNamespace(engine=self.engine, tokenizer=SimpleNamespace(eos_token_id=2))

    def measure(self, work: Callable[[], Any]) -> Measured:
        watch, used = self.watch, self.engine.used
        watch.waits.clear()
        used.clear()
        before = watch.peak = watch.live
        with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
            out = work()
        return Measured(
            out, watch.peak, watch.live - before, counter.get_total_flops(), watch.waits.copy(), used.copy()
        )

    def teacher(self, prompt: Prompt) -> Measured:
        return self.measure(lambda: ask(self.lm, prompt.ids, STEPS, (), "a prompt"))

    def encode(self, prompt: Prompt) -> Measured:
        return self.measure(lambda: self.engine.encode(prompt))

    def score(self, prompt: Prompt, encoded: Any, teacher: Any, history: Any) -> Measured:
        scorer = Scorer(self.lm, Objective(STEPS, history, "continue"))
        return self.measure(lambda: scorer.score(encoded, prompt, teacher, POINTS, sample="a prompt"))

    def generate(self, prompt: Prompt, encoded: Any) -> Measured:
        return self.measure(lambda: generate(self.engine, prompt, encoded, new=1))


def generate(engine: Engine, prompt: Prompt, encoded: Any, new: int) -> Tensor:
    """A prompt with exactly so many greedy tokens."""
    ids, mask = (tensor.to(GPU) for tensor in whole_prompts([prompt], 0))
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    with generating(engine, [prompt], [encoded], mask) as arguments:
        return engine.model.generate(input_ids=ids, **arguments, **options)


@contextmanager
def stand_in(layers: int, strategy: str = "ape", make: Callable[[int], PreTrainedModel] = llama_8b) -> Iterator[Phases]:
    """A GPU without numbers, a model on it, and no search for circles of objects, which nothing may need."""
    model = make(layers)
    gc.disable()
    try:
        with devices.devices(only_shapes=True) as watch:
            devices.place(model, GPU)
            yield Phases(model, watch, resolve({"strategy": strategy}))
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.parametrize(
    ("layers", "tokens", "chunks"),
    [
        (4, 8192, 4),
        (2, 131072, 32),
        pytest.param(32, 8192, 4, marks=pytest.mark.slow),
        pytest.param(32, 32768, 8, marks=pytest.mark.slow),
        pytest.param(32, 131072, 32, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("history", ["teacher", "own"])
def test_a_calibration_of_an_8b_model_takes_the_memory_and_operations_that_are_counted(
    layers: int, tokens: int, chunks: int, history: str
) -> None:
    with stand_in(layers) as phases:
        check_calibration(phases, prompt_of(tokens, chunks), history)


def check_calibration(phases: Phases, prompt: Prompt, history: str) -> None:
    weights, shape, layers = phases.watch.live, ModelShape.of(phases.model), phases.engine.layers
    counts = PointParts(Objective(STEPS, history, "continue"), POINTS, 128256)  # type: ignore[arg-type]
    settings = phases.engine.settings
    encoding, scoring = counts.readings("", settings, [prompt])

    def check(phase: str, found: Measured, part: Part, least: float = 0.95) -> None:
        counted = count_memory(phases.model, [part])
        gibibytes = [size / 2**30 for size in (found.peak, counted.peak)]
        operations = [count / 1e12 for count in (found.operations, part.total(shape))]
        kernels = ", ".join(f"{name} {count}" for name, count in found.used.items())
        cells = [*(f"{size:.2f}" for size in gibibytes), *(f"{count:.1f}" for count in operations)]
        print(f"| {layers} | {len(prompt.ids)} | {phase} | {' | '.join(cells)} | {found.waits.total()} | {kernels} |")
        assert counted.weights == pytest.approx(weights, rel=1e-3)
        assert found.peak - weights == pytest.approx(counted.peak - weights, rel=0.1)
        assert least < found.operations / part.total(shape) < 1.02

    teacher = phases.teacher(prompt)
    check("teacher", teacher, counts.teacher("", settings, [prompt]))
    encoded = phases.encode(prompt)
    # The last layer of an encoding ends with its keys and values, and no output head follows.
    check("chunks encoded", encoded, encoding, least=(layers - 1) / layers - 0.03)
    assert encoded.kept == 2 * layers * 8 * 128 * 2 * (len(prompt.ids) - len(prompt.query))
    scored = phases.score(prompt, encoded.out, teacher.out, history)
    check(f"{len(POINTS)} points scored, {history}", scored, scoring, least=0.9 if layers >= 32 else 0.6)
    assert len(scored.out) == len(POINTS)
    assert scored.kept == 0
    # Everything in full passes goes to flash-attention; the last layer's few wanted queries need a mask.
    assert set(encoded.used) == {"cuda_flash"}
    assert set(scored.used) <= {"cuda_flash", "cuda_efficient"}
    assert scored.used["cuda_efficient"] <= 1


def test_layers_with_a_window_need_the_keys_in_it_alone() -> None:
    with stand_in(6, make=gemma_4b) as phases:
        spent = []
        for tokens in (8192, 32768):
            prompt = prompt_of(tokens, 8)
            encoded, teacher = phases.encode(prompt).out, phases.teacher(prompt).out
            before = phases.watch.live
            for history in ("teacher", "own"):
                scored = phases.score(prompt, encoded, teacher, history)
                spent.append((scored.peak - before, scored.used["cuda_efficient"]))
            del encoded, teacher
    # What four times as long a context needs more is its keys, which were there before.
    assert spent[2][0] < 1.1 * spent[0][0]
    assert spent[3][0] < 1.1 * spent[1][0]
    # Only the pass of the query needs masks: a new token sees all keys that it reads.
    assert all(masked <= 6 for _, masked in spent)


@pytest.mark.parametrize("strategy", ["parallel", "sink", "ape", "sink+selective"])
def test_shapes_dtypes_and_devices_of_what_is_read(strategy: str) -> None:
    with stand_in(2, strategy) as phases:
        prompt = prompt_of(8192, 4)
        encoded = phases.encode(prompt).out
        for segment in encoded.segments:
            for tensor in (*segment.keys, *segment.values):
                assert tensor.shape == (1, 8, len(segment), 128)
                assert (tensor.dtype, tensor.device) == (torch.bfloat16, GPU)
        with phases.engine.tail(encoded, rows=3) as tail:
            logits = tail.read(prompt.query, keep=5)
        assert logits.shape == (3, 5, 128256)
        assert (logits.dtype, logits.device) == (torch.bfloat16, GPU)
        generated = phases.generate(prompt, encoded)
        assert generated.out.shape == (1, len(prompt.ids) + 1)
        assert generated.used


def waits(layers: int, strategy: str) -> dict[str, Counter[str]]:
    """For what the host waits in each phase."""
    with stand_in(layers, strategy) as phases:
        prompt = prompt_of(8192, 4)
        encoded, teacher = phases.encode(prompt), phases.teacher(prompt)
        found = {"encode": encoded, "teacher": teacher}
        for history in ("teacher", "own"):
            found[f"scored, {history}"] = phases.score(prompt, encoded.out, teacher.out, history)
        found["a new token"] = phases.generate(prompt, encoded.out)
        return {name: one.waits for name, one in found.items()}


@pytest.mark.parametrize("strategy", ["ape", "sink+selective"])
def test_the_host_waits_for_no_layer_and_for_a_few_numbers_a_token(strategy: str) -> None:
    few, many = (waits(layers, strategy) for layers in (2, 4))
    assert few == many
    assert not few["encode"]
    # Whether its logits are finite, and the token.
    assert few["teacher"].total() == 2 * STEPS
    # All positions in one pass: finite or not, and the divergences. Distinct T are found once.
    assert few["scored, teacher"].total() <= 16
    assert few["scored, own"].total() <= 3 * STEPS + 8
    assert few["a new token"].total() <= 16


def started(layers: int, strategy: str | None) -> Counter[str]:
    """The operations that one new token starts, by transformers' own attention without a strategy."""
    prompt = prompt_of(8192, 4)
    with stand_in(layers, strategy or "sequential") as phases, ExitStack() as stack:
        engine = phases.engine
        tail = engine.sequential_tail()
        if strategy:
            tail = stack.enter_context(engine.tail(engine.encode(prompt)))
        tail.read(prompt.query if strategy else prompt.ids, keep=1)
        phases.watch.started.clear()
        tail.read([3], keep=1)
        return phases.watch.started


@pytest.mark.parametrize("strategy", ["sink", "ape"])
def test_a_new_token_starts_at_most_a_dozen_operations_a_layer_more_than_in_one_sequence(strategy: str) -> None:
    own, theirs = (started(4, name).total() - started(2, name).total() for name in (strategy, None))
    print(f"{strategy}: {own / 2:g} operations a layer, {theirs / 2:g} in one sequence")
    assert theirs / 2 > 20
    assert (own - theirs) / 2 <= 12


PROMPT = Prompt((1, 5, 6), ((7, 8, 9, 10), (11, 12, 13), (14, 15, 16, 17)), (18, 19, 20))


def small(layers: int, family: str = "llama", **settings: Any) -> Engine:
    """A small model with numbers on a stand-in GPU."""
    model = tiny.make_model(family, layers=layers)
    # The CPU's fused kernels make tensors where the stand-in cannot see them.
    model.set_attn_implementation("eager")
    devices.place(model, GPU)
    return Engine(model, resolve({"attn_backend": "eager", **settings}))


@pytest.mark.parametrize(
    "given",
    [
        {"strategy": "recompute", "recompute": 0.3},
        {"strategy": "recompute", "recompute": 0.3, "recompute_by": "random"},
        {"strategy": "cacheblend", "recompute": 0.3},
        {"strategy": "sink", "positions": "serial"},
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_the_host_waits_for_no_layer_of_a_recomputation(given: dict[str, Any]) -> None:
    def read(layers: int) -> Counter[str]:
        with devices.devices() as watch:
            engine = small(layers, **given)
            # How the model's keys turn is found out once.
            engine.encode(PROMPT)
            watch.waits.clear()
            engine.encode(PROMPT)
            return watch.waits

    few, many = read(2), read(4)
    assert few == many
    assert few.total() <= 4


@pytest.mark.parametrize(
    ("family", "strategy"),
    [("llama", "ape"), ("llama", "sink+selective"), ("mistral", "ape"), ("gemma3", "sink"), ("qwen3", "recompute")],
)
def test_the_host_waits_for_no_layer_of_a_generated_token(family: str, strategy: str) -> None:
    def read(layers: int, new: int) -> Counter[str]:
        with devices.devices() as watch:
            engine = small(layers, family, strategy=strategy)
            encoded = engine.encode(PROMPT)
            watch.waits.clear()
            assert generate(engine, PROMPT, encoded, new).shape == (1, len(PROMPT.ids) + new)
            return watch.waits

    assert read(2, 6) == read(4, 6)
    # transformers' own: whether all rows have ended, and what is masked.
    assert (read(2, 6) - read(2, 2)).total() / 4 <= 4


def test_what_the_host_waits_for_is_seen() -> None:
    with devices.devices() as watch:
        tensor = torch.ones(4).to(GPU)
        watch.waits.clear()
        assert tensor.sum() == 4
        assert tensor[tensor > 0].shape == (4,)
        assert tensor.tolist() == [1.0] * 4
        assert watch.waits.total() == 3
        tensor * 2 + tensor[1:3].sum()
        assert watch.waits.total() == 3
