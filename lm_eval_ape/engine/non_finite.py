"""Numbers that are not finite never become an answer, but an error that says which module they first come out of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.errors import ApeError

Answer = TypeVar("Answer")


class Place(NamedTuple):
    """Where the first number that is not finite comes from.

    Attributes:
        words: A layer or another module.
        damaged: Whether its weights are not finite themselves.
    """

    words: str
    damaged: bool


class NotFiniteError(ApeError):
    """Logits or a score that no distribution can be made of.

    Args:
        what: What is not finite, and of which sample: the beginning of a sentence.
        dtype: The numbers' precision.
        place: Where the first such number arises; None where it is not known yet.
        request: Text of the request, where the harness asked.
    """

    def __init__(self, what: str, dtype: torch.dtype, place: Place | None = None, request: str | None = None) -> None:
        self.what, self.dtype, self.place, self.request = what, dtype, place, request
        name = str(dtype).removeprefix("torch.")
        mend = (
            f"The model's numbers overflow in {name}: load it with dtype=float32 or dtype=bfloat16, or leave this "
            "point or sample out."
        )
        first = ""
        if place is not None:
            first = f" The first such number comes out of {place.words}"
            if place.damaged:
                mend = "The checkpoint is damaged: load a whole copy of it."
                first += ", whose weights are not finite themselves"
            first += "."
        super().__init__(f"{what} not finite.{first} {mend}")


def explain(lm: ServedModel, error: NotFiniteError, again: Callable[[], object]) -> NotFiniteError:
    """The error with the place where the first number that is not finite arises.

    Args:
        lm: The model; what it has kept of encoded prefixes and chunks is not read meanwhile.
        error: What was met.
        again: Does what met it once more.
    """
    with lm.without_kept_chunks(), watching(lm.engine.model) as found, suppress(NotFiniteError):
        again()
    return NotFiniteError(error.what, error.dtype, found[0] if found else None, error.request)


def explained(lm: ServedModel, work: Callable[[], Answer]) -> Answer:
    """Do work; where it meets numbers that are not finite, do it again to say where they arise.

    Raises:
        NotFiniteError: With the place.
    """
    try:
        return work()
    except NotFiniteError as error:
        # Work inside of other work has looked already.
        raise (error if error.place else explain(lm, error, work)) from None


@contextmanager
def watching(model: PreTrainedModel) -> Iterator[list[Place]]:
    """A list that gets the first module that numbers come out of that are not finite."""
    found: list[Place] = []

    def look_in(name: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not found and _broken((*inputs, named.get("hidden_states"))):
            # No module before gave it out: it arises between the parts of the one that holds this one.
            found.append(_place(name.rpartition(".")[0], None))

    def look_out(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not found and _broken(output if isinstance(output, (tuple, list)) else (output,)):
            found.append(_place(name, module))

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(look_in, name), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(look_out, name)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _broken(values: Sequence[Any]) -> bool:
    tensors = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    return any(not bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _place(name: str, module: nn.Module | None) -> Place:
    layer = re.search(r"\.(\d+)(\.|$)", name)
    where = f"layer {layer[1]} ({name})" if layer else name or "the model itself"
    own = () if module is None else (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return Place(where, _broken(own))


@contextmanager
def next_tokens_finite(model: PreTrainedModel, requests: Sequence[str]) -> Iterator[None]:
    """Let no token be taken from logits that are not finite while the context lasts.

    Args:
        model: The model, which generates.
        requests: The text behind each row, or behind each few rows where rows are repeated; none if it is not known.

    Raises:
        NotFiniteError: A row's next token would be taken from such logits.
    """

    def check(module: nn.Module, inputs: Any, output: Any) -> None:
        logits = output.logits[:, -1]
        # The largest one is infinite, or no number, if any is; a token whose logit is -inf is only never taken.
        broken = ~torch.isfinite(logits.amax(-1))
        if broken.any():
            row = int(broken.nonzero()[0]) * len(requests) // len(logits)
            text = requests[row] if requests else None
            raise NotFiniteError("the logits of a generated token are", logits.dtype, request=text)

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()
