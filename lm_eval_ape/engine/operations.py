"""How many floating-point operations a prompt takes under an encoding, counted from a model's shape.

A multiply-add is two. What is counted are products of matrices: the layers', attention's, and the output head's. Norms,
rotary embeddings and softmaxes are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from lm_eval_ape.engine.recomputation import recomputed_count
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.layers import read_layers
from lm_eval_ape.settings.strategy import Settings


@dataclass(frozen=True)
class ModelShape:
    """What of a model the operations depend on.

    Attributes:
        layer_parameters: Of all layers' matrices; of experts, as many as one token goes through.
        head_parameters: Of the output head.
        attention: Query heads times the dimensions of a head.
        keys: Key heads times the dimensions of a head.
        hidden: Dimensions of a token.
        windows: Of each layer, how many keys a token sees at most; None for all before it.
    """

    layer_parameters: float
    head_parameters: int
    attention: int
    keys: int
    hidden: int
    windows: tuple[int | None, ...]

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelShape:
        """The shape of a model, whose weights need not be there (device `meta`)."""
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        dimensions = getattr(config, "head_dim", None) or config.hidden_size // heads
        experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 0
        chosen = getattr(config, "num_experts_per_tok", None) or experts
        parameters = 0.0
        for name, weight in model.named_parameters():
            if ".layers." in name and weight.dim() > 1:
                # Experts are one tensor with a dimension of their own, or modules with numbers.
                of_expert = experts > 0 and (weight.dim() > 2 or ".experts." in name)
                parameters += weight.numel() * (chosen / experts if of_expert else 1)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        window = getattr(config, "sliding_window", None)
        if window and not getattr(config, "layer_types", None):
            kinds = ["sliding_attention"] * config.num_hidden_layers
        return cls(
            parameters,
            model.get_output_embeddings().weight.numel(),
            heads * dimensions,
            (getattr(config, "num_key_value_heads", None) or heads) * dimensions,
            config.hidden_size,
            tuple(window if kind == "sliding_attention" else None for kind in kinds),
        )

    @property
    def head(self) -> float:
        """Operations of one token's logits."""
        return 2.0 * self.head_parameters

    def forward(self, tokens: float, seen: float) -> float:
        """Operations of tokens that each see `seen` keys in the mean, through all layers, without logits."""
        in_sight = sum(min(seen, window or seen) for window in self.windows)
        return tokens * (2 * self.layer_parameters + 4 * self.attention * in_sight)

    def products(self, tokens: float, seen: float, layers: float) -> float:
        """Operations of the products of tokens' queries with keys, in some layers."""
        return 2 * self.attention * layers * tokens * seen


@dataclass(frozen=True)
class PromptOperations:
    """Operations of a prompt.

    Attributes:
        shape: The model's.
        prefix: Tokens of the prefix.
        chunks: Tokens of each chunk.
        query: Tokens of the query.
    """

    shape: ModelShape
    prefix: int
    chunks: Sequence[int]
    query: int

    @classmethod
    def of(cls, shape: ModelShape, prompt: Prompt) -> PromptOperations:
        """Of a prompt's lengths."""
        return cls(shape, len(prompt.prefix), [len(chunk) for chunk in prompt.chunks], len(prompt.query))

    @property
    def context(self) -> int:
        """Tokens of all chunks."""
        return sum(self.chunks)

    @property
    def tokens(self) -> int:
        """Tokens of the whole prompt."""
        return self.prefix + self.context + self.query

    @property
    def sequential(self) -> float:
        """The prompt in one sequence, up to the first new token's logits."""
        return self.shape.forward(self.tokens, self.tokens / 2) + self.shape.head

    def encoding(self, *, shared_prefix: bool = True) -> float:
        """Prefix and chunks; each chunk sees itself and, if it is shared, the prefix."""
        before = self.prefix if shared_prefix else 0
        chunks = sum(self.shape.forward(tokens, before + tokens / 2) for tokens in self.chunks)
        return self.shape.forward(self.prefix, self.prefix / 2) + chunks

    @property
    def reading(self) -> float:
        """The query, which sees prefix and context, up to the first new token's logits."""
        return self.shape.forward(self.query, self.tokens - self.query / 2) + self.shape.head

    @property
    def parallel(self) -> float:
        """Chunks and query."""
        return self.encoding() + self.reading

    def recomputation(self, share: float, by: str, layers: int | None = None) -> float:
        """Some of the context's tokens read once more, anywhere after the first chunk, and what chooses them.

        Args:
            share: `Settings.recompute`.
            by: `Settings.recompute_by`.
            layers: How many layers' attention a query looks at; None for all.
        """
        if not share:
            return 0.0
        shape, first = self.shape, self.chunks[0]
        after_first = self.context - first
        seen = self.prefix + (self.context + first) / 2
        chosen = shape.forward(min(recomputed_count(share, self.context), after_first), seen)
        if by == "query":
            # The query once more without logits, and its attention's products of queries and keys a second time.
            probed = len(shape.windows) if layers is None else layers
            return chosen + self.reading - shape.head + shape.products(self.query, self.context, probed)
        if by == "deviation":
            # Layer 0 of all tokens, and the products of layer 1 that make queries, keys and values.
            products = 2 * shape.hidden * (shape.attention + 2 * shape.keys)
            return chosen + shape.forward(after_first, seen) / len(shape.windows) + after_first * products
        return chosen

    def prefill(self, settings: Settings) -> float:
        """The prompt under settings, up to the first new token's logits."""
        if not settings.parallel:
            return self.sequential
        layers = len(read_layers(settings.recompute_layers)(len(self.shape.windows)))
        again = self.recomputation(settings.recompute, settings.recompute_by, layers)
        whole = self.sequential if "sequential" in (settings.keys_from, settings.values_from) else 0.0
        return self.encoding(shared_prefix=settings.shared_prefix) + whole + again + self.reading

    def scoring(self, points: int, steps: int) -> float:
        """Query and `steps` tokens of some points, read once for each."""
        tokens = self.query + steps - 1
        return points * (self.shape.forward(tokens, self.prefix + self.context + tokens / 2) + steps * self.shape.head)

    def generation(self, new: int) -> float:
        """What follows a prompt that is read: `new` tokens of one row, the first of whose logits are there."""
        steps = max(new - 1, 0)
        return self.shape.forward(steps, self.tokens + new / 2) + steps * self.shape.head

    def continuation(self, new: int, *, sequential: bool = False) -> float:
        """Query and a known continuation of `new` tokens, with the logits of all that is read.

        Args:
            new: Tokens of the continuation.
            sequential: Whether the whole prompt is read in the query's place.
        """
        tokens = (self.tokens if sequential else self.query) + new - 1
        seen = tokens / 2 + (0 if sequential else self.prefix + self.context)
        return self.shape.forward(tokens, seen) + tokens * self.shape.head

    def teacher(self, steps: int) -> float:
        """The sequential model's prompt and its own tokens."""
        return self.sequential + self.generation(steps)
