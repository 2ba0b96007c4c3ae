"""What the benchmarks run: random Llamas of stated shapes, random prompts, and the operations that they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

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
    "llama-3.1-8b": Shape(hidden=4096, intermediate=14336, layers=32, heads=32, kv_heads=8, vocabulary=128256),
}


@dataclass(frozen=True)
class Counts:
    """Floating-point operations of a prompt of `context` tokens in equal chunks, a multiply-add counted as two."""

    shape: Shape
    context: int
    chunks: int
    query: int

    def _forward(self, tokens: float, seen: float) -> float:
        """Of `tokens` tokens that each see `seen` keys in the mean."""
        shape = self.shape
        attention = 4 * shape.heads * shape.head_dim * shape.layers * seen
        return tokens * (2 * shape.layer_parameters + attention)

    @property
    def head(self) -> float:
        """One token's logits."""
        return 2.0 * self.shape.hidden * self.shape.vocabulary

    @property
    def sequential(self) -> float:
        """Context and query in one sequence, one token's logits."""
        tokens = self.context + self.query
        return self._forward(tokens, tokens / 2) + self.head

    @property
    def encoding(self) -> float:
        """The chunks, each on its own."""
        return self._forward(self.context, self.context / self.chunks / 2)

    @property
    def reading(self) -> float:
        """The query, which sees all of the context, and one token's logits."""
        return self._forward(self.query, self.context + self.query / 2) + self.head

    @property
    def parallel(self) -> float:
        """Chunks and query."""
        return self.encoding + self.reading

    def recomputation(self, share: float, by: str) -> float:
        """A share of the context's tokens read once more, anywhere after the first chunk, and what chooses them."""
        if not share:
            return 0.0
        shape, after_first = self.shape, self.context * (1 - 1 / self.chunks)
        seen = self.context * (1 + 1 / self.chunks) / 2
        chosen = self._forward(min(share * self.context, after_first), seen)
        if by == "query":
            # The query once more without logits, and its attention's products of queries and keys a second time.
            products = 2 * shape.heads * shape.head_dim * shape.layers * self.query * self.context
            return chosen + self.reading - self.head + products
        if by == "deviation":
            # Layer 0 of all tokens, and the products of layer 1 that make queries, keys and values.
            products = 2 * shape.hidden * (shape.hidden + 2 * shape.kv_heads * shape.head_dim)
            return chosen + self._forward(after_first, seen) / shape.layers + after_first * products
        return chosen

    def scoring(self, points: int, steps: int) -> float:
        """Query and `steps` tokens of some points, read once for each."""
        tokens = self.query + steps - 1
        return points * (self._forward(tokens, self.context + tokens / 2) + steps * self.head)

    def teacher(self, steps: int) -> float:
        """The sequential model's prompt and its own tokens."""
        after = self._forward(steps - 1, self.context + self.query + steps / 2) + (steps - 1) * self.head
        return self.sequential + after


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


def make_prompt(
    shape: Shape, *, context: int, chunks: int, query: int = 64, prefix: int = 1, seed: int = SEED
) -> Prompt:
    """Random tokens: a prefix, a context in chunks of nearly equal length, a query."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, shape.vocabulary, (count,), generator=generator).tolist())

    lengths = [context // chunks + (number < context % chunks) for number in range(chunks)]
    return Prompt(tokens(prefix), tuple(map(tokens, lengths)), tokens(query))
