"""Which models are refused, and in which words."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from helpers import tiny
from lm_eval_ape.engine import support
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.strategy import resolve


def build(config: transformers.PreTrainedConfig) -> PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rope_decoders_are_accepted(family: str, dtype: torch.dtype) -> None:
    support.check(tiny.make_model(family, dtype=dtype), resolve({}))


def test_a_model_without_rope_is_refused_and_runs_sequentially() -> None:
    model = build(transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4))
    with pytest.raises(ApeError, match=r"GPT2LMHeadModel cannot run with strategy=ape: it has no rotary position"):
        support.check(model, resolve({}))
    support.check(model, resolve({"strategy": "sequential"}))


def test_alibi_is_refused() -> None:
    config = transformers.FalconConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=True,
        new_decoder_architecture=False,
    )
    with pytest.raises(ApeError, match=r"ALiBi|no rotary"):
        support.check(build(config), resolve({}))


def test_a_model_with_an_attention_of_its_own_is_refused() -> None:
    config = transformers.FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    with pytest.raises(ApeError, match="does not let its attention function be replaced"):
        support.check(build(config), resolve({}))


def test_layers_that_keep_one_state_for_all_the_past_are_refused() -> None:
    config = transformers.Llama4TextConfig(
        vocab_size=97,
        head_dim=8,
        attention_chunk_size=16,
        **{k: v for k, v in tiny.COMMON.items() if k != "initializer_range"},
    )
    with pytest.raises(ApeError, match="it has chunked_attention layers"):
        support.check(build(config), resolve({}))


def test_windowed_models_take_no_stretched_positions() -> None:
    with pytest.raises(ApeError, match="positions=stretched does not go with its sliding window of 6 tokens"):
        support.check(tiny.make_model("gemma3"), resolve({"positions": "stretched"}))


def test_a_model_without_so_many_layers_is_refused_before_it_reads_anything() -> None:
    with pytest.raises(ApeError, match="recompute_layers=last:9, but the model has 3 layers"):
        support.check(tiny.make_model(), resolve({"strategy": "recompute", "recompute_layers": "last:9"}))


def test_a_model_whose_attention_differs_from_what_it_declares_is_found_by_the_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny.make_model(dtype=torch.float32)
    attention = model.model.layers[0].self_attn
    forward = attention.forward

    def louder(*args: object, **kwargs: object) -> object:
        # A scaling that only the stock kernel sees.
        attention.scaling = 0.01 if model.config._attn_implementation == "sdpa" else 0.3
        return forward(*args, **kwargs)

    monkeypatch.setattr(attention, "forward", louder)
    with pytest.raises(ApeError, match=r"distributions should be the sequential ones, but their KL divergence is"):
        support.check(model, resolve({}))


def test_rotary_frequencies_that_change_with_length_bound_the_window() -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
    }
    lengths = {"original_max_position_embeddings": 64, "rope_parameters": rope}
    config = transformers.Phi3Config(**{**tiny.COMMON, "vocab_size": 97, **lengths})
    assert support.window(config, 4096, resolve({})) == 64
    assert support.window(config, 32, resolve({})) == 32
    assert support.window(config, 4096, resolve({"strategy": "sequential"})) == 4096
    assert support.window(tiny.make_model("llama3").config, 4096, resolve({})) == 4096
    support.check(build(config), resolve({}))
    with pytest.raises(ApeError, match="positions=serial has no meaning"):
        support.check(build(config), resolve({"positions": "serial"}))


@pytest.mark.parametrize("implementation", ["static", "offloaded", "dynamic"])
def test_a_checkpoint_that_asks_for_a_cache_of_its_own_is_served_and_keeps_asking(implementation: str) -> None:
    model = tiny.make_model("gemma3", dtype=torch.float32)
    model.generation_config.cache_implementation = implementation
    support.check(model, resolve({}))
    assert model.generation_config.cache_implementation == implementation
    assert model.config._attn_implementation == "sdpa"
