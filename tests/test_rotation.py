"""Keys that were encoded at one position and moved to another are those that are encoded there."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from helpers import tiny
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.encoding.rotation import Rotation, rotation_of
from lm_eval_ape.errors import ApeError

# How rotary embeddings come in transformers: kinds of frequencies, and ways in which models use them.
ROPES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "yarn": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 1e4,
                "original_max_position_embeddings": 1024,
            }
        },
    ),
    "two kinds of layers": (
        "Gemma3TextConfig",
        {
            "head_dim": 8,
            "sliding_window": tiny.WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "layers without": ("SmolLM3Config", {"no_rope_layers": [1, 0, 1]}),
    "neighbours of a part": ("GlmConfig", {"head_dim": 8, "partial_rotary_factor": 0.5}),
}


def make(rope: str) -> PreTrainedModel:
    if rope in tiny.FAMILIES:
        return tiny.make_model(rope)
    tiny.FAMILIES[rope] = ROPES[rope]
    try:
        return tiny.make_model(rope)
    finally:
        del tiny.FAMILIES[rope]


@torch.no_grad()
def keys_at(model: PreTrainedModel, ids: list[int], positions: list[int]) -> list[torch.Tensor]:
    cache = DynamicCache()
    model.get_decoder()(torch.tensor([ids]), position_ids=torch.tensor([positions]), **cache_argument(model, cache))
    return [layer.keys for layer in cache.layers]


@pytest.mark.parametrize("rope", [*tiny.FAMILIES, *ROPES])
def test_moved_keys_are_those_that_are_encoded_there(rope: str) -> None:
    with tiny.InDouble():
        model = make(rope)
        ids = list(range(10, 15))
        near, far = list(range(7, 12)), list(range(901, 906))
        move = Rotation(model).move(torch.tensor(near), torch.tensor(far))
        there = keys_at(model, ids, far)
        for layer, keys in enumerate(keys_at(model, ids, near)):
            assert (move.keys(layer, keys) - there[layer]).abs().max() < 1e-12 * there[layer].abs().max()


def test_layers_that_do_not_turn_keep_their_keys() -> None:
    turns = [turn.pairs is not None for turn in Rotation(make("layers without")).layers]
    assert turns == [True, False, True]


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_half_precision_loses_about_one_rounding(dtype: torch.dtype, most: float) -> None:
    model = tiny.make_model(dtype=dtype)
    near, far = list(range(5)), list(range(300, 305))
    ids = list(range(10, 15))
    move = Rotation(model).move(torch.tensor(near), torch.tensor(far))
    # Layer 0: those above differ by the rounding of their inputs, too.
    got, there = move.keys(0, keys_at(model, ids, near)[0]), keys_at(model, ids, far)[0]
    assert got.dtype == dtype
    assert (got.double() - there.double()).abs().max() < most * there.double().abs().max()


def test_a_models_rotation_is_found_once_and_forgotten_with_it() -> None:
    model = tiny.make_model()
    found = rotation_of(model)
    assert rotation_of(model) is found
    kept, there = weakref.ref(found), weakref.ref(model)
    del model, found
    gc.collect()
    assert there() is None
    assert kept() is None


def test_a_model_that_turns_keys_in_no_known_way_is_refused_by_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make_model()
    projection = model.model.layers[1].self_attn.k_proj
    calls: list[int] = []

    def add(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return output + torch.arange(output.shape[0]).view(-1, 1, 1)

    projection.register_forward_hook(add)
    with pytest.raises(
        ApeError, match="LlamaForCausalLM cannot run with positions=serial: layer 1 turns its keys in a"
    ):
        rotation_of(model)
    assert calls


def test_a_model_whose_layers_get_no_rotary_embeddings_is_refused() -> None:
    model = tiny.make_model()
    layer = model.model.layers[2]

    class Wrapped(torch.nn.Module):
        """Looks for the embeddings elsewhere."""

        def forward(self, hidden: Any, **options: Any) -> Any:
            return layer(hidden, position_embeddings=model.model.rotary_emb(hidden, options["position_ids"]), **options)

    model.model.layers[2] = Wrapped()
    handed = model.model.layers[2]
    handed.register_forward_pre_hook(lambda _, args, kwargs: (args, dropped(kwargs)), with_kwargs=True, prepend=True)
    with pytest.raises(ApeError, match="layer 2 does not get its rotary embeddings from a module of the decoder"):
        rotation_of(model)


def dropped(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "position_embeddings"}
