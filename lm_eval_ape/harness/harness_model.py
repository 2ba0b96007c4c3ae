"""What calibration and analysis ask of the harness's model where they need prompts or scores, and how they load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lm_eval.api.instance import Instance

from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.requests import RequestCutter
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings


class HarnessModel(ServedModel, Protocol):
    """A served model that the harness can evaluate, and whose requests can be cut without answering them.

    Attributes:
        model: The model of transformers.
        pretrained: What it was loaded from.
        gguf_file: The GGUF file there, if it is one.
        revision: Its revision on the hub.
        peft: Its adapter, if it has one.
        delta: Weights that were added to it, if any were.
        tokenizer_name: The tokenizer's name, under which the harness keeps requests with a chat template.
        max_length: Most tokens of a prompt and its answer.
        rank: This process's number.
        cutter: Cuts requests.
    """

    model: Any
    pretrained: Any
    gguf_file: str | None
    revision: str
    peft: str | None
    delta: str | None
    tokenizer_name: str
    max_length: int
    rank: int
    cutter: RequestCutter

    @property
    def settings(self) -> Settings:
        """How prompts are encoded and read."""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Put messages into the chat template."""

    def split_requests(self, requests: Sequence[Instance], reserves: Sequence[int], quiet: bool) -> dict[str, Prompt]:
        """Cut requests, each with room for so many tokens of an answer; prompts by the requests' texts."""


def load(model_args: Mapping[str, Any], *, batch_size: int, device: str | None) -> HarnessModel:
    """Load the model `ape-hf`, as `lm_eval --model ape-hf` does.

    Args:
        model_args: Its arguments.
        batch_size: Requests that are answered at a time.
        device: Where it runs; None for the harness's choice.

    Raises:
        ApeError: An argument is impossible, or the model cannot be served (see `ApeHFLM`).
    """
    lm: HarnessModel = ApeHFLM.create_from_arg_obj(dict(model_args), {"batch_size": batch_size, "device": device})
    return lm
