"""The pocket model: a Llama so small that it trains on a laptop, and how it gets more layers."""

from __future__ import annotations

import copy

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def new_model(tokenizer: PreTrainedTokenizerFast, layers: int) -> LlamaForCausalLM:
    """An untrained model, drawn from torch's global generator: 64 wide, 2 heads, tied embeddings."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=8192,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            initializer_range=0.05,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def stack_layers(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """The model with its layers repeated on top until it has `layers` of them.

    Copies look a value up by its key from their first step on (progressive stacking, Gong et al.,
    2019), and a second look-up on top of the first is what a two-hop question needs; added layers
    that start at zero did not find it.
    """
    old = model.config.num_hidden_layers
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = layers
    stacked = LlamaForCausalLM(config)
    stacked.load_state_dict(model.state_dict(), strict=False)
    for index in range(old, layers):
        stacked.model.layers[index].load_state_dict(model.model.layers[index % old].state_dict())
    return stacked
