"""KL and its gradient with respect to log T and log S, for rows of factors on one prompt.

Keys and values of prefix and chunks do not depend on T and S: they are read as constants, and only the pass of the
query (and of the teacher's tokens after it) is differentiated. Rows with T and S of their own share the context's keys,
as the points of a grid do, and their gradients do not mix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from lm_eval_ape.attention.segments import EncodedPrompt, OnePassLayer
from lm_eval_ape.calibration.objective.divergence import forward_kl, log_probabilities
from lm_eval_ape.calibration.objective.teacher import Teacher
from lm_eval_ape.engine.decoding import check_finite
from lm_eval_ape.engine.engine import Tail
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.runtime.out_of_memory import Room

logger = logging.getLogger(__name__)


class Gradient(NamedTuple):
    """Divergences of rows on a prompt.

    Attributes:
        kl: Mean over the teacher's positions, in nats, `(rows,)`, float64 on the CPU.
        slope: Its derivative by each parameter, of the parameters' shape, or zeros where none was asked for.
    """

    kl: Tensor
    slope: Tensor


class Differentiator:
    """Differentiates prompts' divergences, a batch of rows at a time.

    A row's parameters are log T, log S and, if the prefix has a pair of its own, log T and log S of the prefix, each
    `(layers or 1, heads or 1)`.

    Args:
        lm: The model; how it encodes and merges is read from its settings, T and S are not.
        max_rows: Most rows in one batch. Where memory does not suffice, layers first compute their activations again in
            the backward pass instead of keeping them, then the batch is halved; both for good.
    """

    def __init__(self, lm: ServedModel, max_rows: int | None = None) -> None:
        self.lm = lm
        self.room = Room(max_rows, relieve=self._recompute)
        self.recomputes = False

    def _recompute(self) -> str | None:
        """Let layers compute their activations again in the backward pass, if they do not yet."""
        if self.recomputes:
            return None
        self.recomputes = True
        return "activations are computed again instead of kept"

    def differentiate(
        self,
        prompt: Prompt,
        encoded: EncodedPrompt,
        teacher: Teacher,
        parameters: Tensor,
        wanted: Tensor,
        *,
        sample: str,
    ) -> Gradient:
        """KL(teacher || student) of each row over the teacher's positions, and its slope.

        Args:
            prompt: The prompt, with at least one chunk.
            encoded: Its encoded prefix and chunks.
            teacher: Its teacher, cut to K tokens, with the query's distributions where they count.
            parameters: `(rows, 2 or 4, layers or 1, heads or 1)`, float64 on the CPU.
            wanted: Boolean `(rows,)`: the rows whose slope is asked for.
            sample: Where the prompt comes from, for errors.

        Raises:
            ApeError: Logits are not finite, or memory does not suffice for a single row.
        """

        def work(part: slice) -> Gradient:
            return self._batch(prompt, encoded, teacher, parameters[part], wanted[part], sample=sample)

        def refusal() -> ApeError:
            return ApeError(
                f"{sample}: memory does not suffice to differentiate one pass of its {len(prompt.query)} query "
                f"tokens over {len(prompt.ids)} tokens; free some, or calibrate on shorter samples or with a "
                "smaller dtype."
            )

        parts = self.room.pieces(work, len(parameters), what=sample, refusal=refusal)
        return Gradient(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _batch(
        self,
        prompt: Prompt,
        encoded: EncodedPrompt,
        teacher: Teacher,
        parameters: Tensor,
        wanted: Tensor,
        *,
        sample: str,
    ) -> Gradient:
        engine = self.lm.engine
        precision = torch.promote_types(engine.model.dtype, torch.float32)
        leaf = parameters.to(engine.device, precision, copy=True).requires_grad_(bool(wanted.any()))
        expected = torch.cat([teacher.query, teacher.log_probs])
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(leaf.requires_grad))
            stack.enter_context(_frozen(engine.model))
            if self.recomputes:
                stack.enter_context(recomputing(engine.model))
            tail = stack.enter_context(self._tail(encoded, leaf))
            logits = tail.read([*prompt.query, *teacher.tokens[:-1].tolist()], keep=len(expected))
            names = [f"row {number} of T and S" for number in range(len(leaf))]
            check_finite(logits.detach(), names, 1, sample)
            kl = forward_kl(expected, log_probabilities(logits)).mean(-1)
            if leaf.requires_grad:
                (kl * wanted.to(kl)).sum().backward()
        slope = torch.zeros_like(parameters) if leaf.grad is None else leaf.grad.to("cpu", torch.float64)
        return Gradient(kl.detach().to("cpu", torch.float64), slope)

    def _tail(self, encoded: EncodedPrompt, parameters: Tensor) -> AbstractContextManager[Tail]:
        factors = parameters.exp()
        names = ("temperature", "scale", "prefix_temperature", "prefix_scale")
        given: dict[str, Any] = {name: factors[:, number] for number, name in enumerate(names[: factors.shape[1]])}
        return self.lm.engine.tail(encoded, rows=len(parameters), layer=OnePassLayer, selection=None, **given)


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """Let no weight ask for a gradient while the context lasts: activations are then not kept for it."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in trained:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Let every decoder layer keep its input only and compute the rest again in the backward pass.

    transformers' own switch works in training mode and takes the cache away; here each layer's `forward` is wrapped.
    """
    layers: Sequence[GradientCheckpointingLayer] = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    # Weights that are offloaded have a `forward` of their own already.
    before = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward
