"""What follows from measurements, and what memory is counted: arithmetic, beside figures of real runs."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import tiny
from lm_eval_ape.forecast.measuring import along
from lm_eval_ape.forecast.memory import count_memory
from lm_eval_ape.forecast.parts import Held, Item, Part, passed_tokens
from lm_eval_ape.forecast.random_model import make_random
from lm_eval_ape.forecast.resident import resident_bytes
from lm_eval_ape.forecast.table import duration, size
from lm_eval_ape.pocket import pocket_path
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve


def test_other_sizes_lie_on_the_line_through_two() -> None:
    assert along([1, 3], [5, 9], [1, 2, 3, 10]) == pytest.approx(5 + 7 + 9 + 23)


def test_no_start_is_below_zero_and_no_line_falls() -> None:
    assert along([1, 2], [1, 4], [4]) == pytest.approx(8)
    assert along([1, 2], [4, 3], [4]) == pytest.approx(3)
    assert along([2, 2], [3, 4], [4]) == pytest.approx(8)
    assert along([0, 0], [0, 0], [0]) == 0


def test_a_prompt_is_shortened_chunk_by_chunk() -> None:
    prompt = Prompt((1, 2), (tuple(range(10)), tuple(range(5))), (7, 8, 9))
    (short,) = Item((prompt,)).shortened(0.5).prompts
    assert short == Prompt((1, 2), (tuple(range(5)), tuple(range(3))), (7, 8, 9))
    (whole,) = Item((Prompt((), (), tuple(range(9))),)).shortened(0.3).prompts
    assert whole == Prompt((), (), (0, 1, 2))


def test_the_largest_pass_holds_pieces_once_or_is_one_long_piece() -> None:
    chunks = (tuple(range(9000)), tuple(range(10)))
    prompt = Prompt((1,), chunks, (2,))
    assert passed_tokens([prompt], resolve({"strategy": "ape"})) == 9000
    assert passed_tokens([prompt], resolve({"strategy": "value_only"})) == 9011
    short = Prompt((1,), ((1, 2), (3,)), (2,))
    other = Prompt((1,), ((1, 2), (4,)), (2,))
    assert passed_tokens([short, short], resolve({"strategy": "ape"})) == 1 + 2 + 1
    assert passed_tokens([short, other], resolve({"strategy": "ape"})) == 1 + 2 + 1 + 1
    assert passed_tokens([Prompt((), (), (1, 2))], resolve({"strategy": "ape"})) == 0


def test_keys_and_values_are_counted_in_bytes_of_all_layers() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(pocket_path()), dtype=torch.bfloat16)
    item = Item((Prompt((1,), ((2, 3),), (4,)),))

    def part(*held: float) -> Part:
        return Part(
            "", resolve({}), [item], lambda shape, settings, item: 0, lambda lm, item: 0, lambda item: Held(*held)
        )

    # Four layers of two key heads of 32 dimensions, in two bytes.
    keys = 2 * 4 * 2 * 32 * 2
    found = count_memory(model, [part(10, 0, 0, 0), part(4, 0, 0, 0)])
    assert found.kv == 10 * keys
    assert found.weights == sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
    assert found.peak == found.weights + 10 * keys
    vocabulary = model.config.vocab_size
    distributions = vocabulary * (3 * 2 + 5 * 4)
    assert count_memory(model, [part(0, 0, 3, 5)]).peak == found.weights + distributions
    # Distributions are made when a pass's activations are gone.
    assert count_memory(model, [part(2, 1, 3, 5)]).peak == found.weights + 2 * keys + distributions
    # Hidden 64 and intermediate 128: a feed-forward layer has less at once than attention, whose heads are 64 wide.
    assert count_memory(model, [part(0, 7, 0, 0)]).peak == found.weights + 7 * 2 * (3 * 64 + 3 * 64 + 4 * 64)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_a_random_model_has_the_layers_and_the_precision_that_are_asked_for(family: str) -> None:
    model = tiny.make_model(family)
    state = torch.get_rng_state()
    made = make_random(model, 2, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert made.config.num_hidden_layers == len(made.get_decoder().layers) == 2
    assert made.dtype == model.dtype
    assert made.config._attn_implementation == model.config._attn_implementation
    assert model.config.num_hidden_layers == 3


def test_the_processs_memory_is_told() -> None:
    assert 2**20 < resident_bytes() < 2**40


def test_figures_are_told_in_words() -> None:
    assert [duration(seconds) for seconds in (0.1234, 59, 61, 3725)] == ["0.123 s", "59 s", "1 min 1 s", "1 h 2 min"]
    assert [size(count) for count in (100, 2048, 3 * 2**20, 5 * 2**30)] == ["100 B", "2 KiB", "3 MiB", "5 GiB"]
