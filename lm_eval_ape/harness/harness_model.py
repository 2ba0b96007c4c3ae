"""What calibration and analysis ask of the harness's model where they need prompts or scores, and how they load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from lm_eval.api.instance import Instance

from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.requests import RequestCutter
from lm_eval_ape.harness.response_cache import Responder
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.prompts.tally import Tally


class HarnessModel(ServedModel, Responder, Protocol):
    """A served model that the harness can evaluate, and whose requests can be cut without answering them.

    Attributes:
        gguf_file: The GGUF file in what it was loaded from, if it is one.
        tokenizer_name: The tokenizer's name, under which the harness keeps requests with a chat template.
        rank: This process's number.
        cutter: Cuts requests.
    """

    gguf_file: str | None
    tokenizer_name: str
    rank: int
    cutter: RequestCutter

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Put messages into the chat template."""

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations: the log-likelihood of each, and whether it is the greedy one."""

    def scored_tokens(self, prompt: str, continuation: str) -> int:
        """How many tokens of a continuation are scored after a prompt."""

    def answering_share(self) -> AbstractContextManager[list[Tally]]:
        """While the context lasts, requests are a share of what other processes answer too."""

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
