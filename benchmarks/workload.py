"""What the benchmarks run: random Llamas of stated shapes, random prompts, and the operations that they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lm_eval_ape.engine.operations import ModelShape, PromptOperations
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.pocket import pocket_path
from lm_eval_ape.prompts.prompt import Prompt

SEED = 1234


@dataclass(frozen=True)
class Shape:
    """A Llama's shape; heads have 64 dimensions in the small ones, 128 in the 8B one, as its makers chose."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        """Dimensions of a head."""
        return self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers' matrices, without embedding and head."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.kv_heads * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """All matrices, embedding and head apart."""
        return self.layer_parameters + 2 * self.hidden * self.vocabulary

    def words(self) -> str:
        """The shape in a line of text."""
        return (
            f"Llama of {self.parameters / 1e6:.1f}M parameters: {self.layers} layers, hidden {self.hidden}, "
            f"intermediate {self.intermediate}, {self.heads} heads of {self.head_dim} over {self.kv_heads} key heads, "
            f"vocabulary {self.vocabulary}, random weights"
        )


SHAPES = {
    "tiny": Shape(hidden=64, intermediate=96, layers=2, heads=4, kv_heads=2, vocabulary=1024),
    "50m": Shape(hidden=512, intermediate=1536, layers=6, heads=8, kv_heads=2, vocabulary=32000),
    # SmolLM2-135M's.
    "135m": Shape(hidden=576, intermediate=1536, layers=30, heads=9, kv_heads=3, vocabulary=49152),
    "llama-3.1-8b": Shape(hidden=4096, intermediate=14336, layers=32, heads=32, kv_heads=8, vocabulary=128256),
}


def operations(shape: Shape, context: int, chunks: int, query: int) -> PromptOperations:
    """Operations of a prompt of `context` tokens in equal chunks."""
    model = ModelShape(
        layer_parameters=shape.layer_parameters,
        head_parameters=shape.hidden * shape.vocabulary,
        attention=shape.heads * shape.head_dim,
        keys=shape.kv_heads * shape.head_dim,
        hidden=shape.hidden,
        windows=(None,) * shape.layers,
    )
    return PromptOperations(model, 0, equal_lengths(context, chunks), query)


def make_model(shape: Shape, device: str, dtype: str, window: int, attention: str = "sdpa") -> PreTrainedModel:
    """A Llama of random weights, the same each time, with a window that holds the prompts."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        # No token that a random model would stop at.
        eos_token_id=None,
        bos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=False,
        attn_implementation=attention,
    )
    torch.manual_seed(SEED)
    with torch.device(device):
        previous = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(previous)
    return model.eval()


def make_lm(model: PreTrainedModel, **arguments: Any) -> ApeHFLM:
    """The model as `ape-hf`, with the shipped tokenizer (prompts of these benchmarks are token ids)."""
    tokenizer = AutoTokenizer.from_pretrained(pocket_path())
    # The harness wants a token that ends a text; the model's own generation stops at none.
    return ApeHFLM(model, tokenizer=tokenizer, max_length=model.config.max_position_embeddings, **arguments)


def equal_lengths(context: int, chunks: int) -> list[int]:
    """Lengths of chunks of nearly equal length."""
    return [context // chunks + (number < context % chunks) for number in range(chunks)]


def make_prompt(
    shape: Shape, *, context: int, chunks: int, query: int = 64, prefix: int = 1, seed: int = SEED
) -> Prompt:
    """Random tokens: a prefix, a context in chunks of nearly equal length, a query."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, shape.vocabulary, (count,), generator=generator).tolist())

    return Prompt(tokens(prefix), tuple(map(tokens, equal_lengths(context, chunks))), tokens(query))
