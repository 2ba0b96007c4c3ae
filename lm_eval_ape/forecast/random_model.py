"""A random model of a checkpoint's shape with some of its layers, whose time is that of the real one's layers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.api.instance import Instance
from transformers import PreTrainedModel

from lm_eval_ape.engine.operations import ModelShape
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.layers import ALL_LAYERS
from lm_eval_ape.settings.strategy import Settings


class RandomApeHFLM(ApeHFLM):
    """`ape-hf` with random weights, which reads requests by prompts that it is given.

    Args:
        model: The random model.
        whole: Whether it has all of the layers.
        **arguments: Those of `ApeHFLM`.

    Attributes:
        shape: The model's.
        given: By requests' texts, the prompts that are read in their place.
    """

    def __init__(self, model: PreTrainedModel, *, whole: bool, **arguments: Any) -> None:
        self.whole = whole
        self.shape = ModelShape.of(model)
        self.given: Mapping[str, Prompt] = {}
        super().__init__(model, **arguments)

    @classmethod
    def like(cls, lm: ApeHFLM, layers: int) -> RandomApeHFLM:
        """A random model of some of another one's layers, in its precision and on its device.

        Args:
            lm: The other one, whose weights need not be there.
            layers: How many, at most as many as it has.
        """
        logger = logging.getLogger("lm_eval.models.huggingface")
        before = logger.level
        # The harness warns of every model that is given to it loaded.
        logger.setLevel(logging.ERROR)
        try:
            return cls(
                make_random(lm.model, layers, lm.device),
                whole=layers == lm.engine.layers,
                tokenizer=lm.tokenizer,
                batch_size=lm.batch_size_per_gpu,
                max_length=lm.max_length,
                add_bos_token=lm.add_bos_token,
                prefix_token_id=lm.custom_prefix_token_id,
                mixed_precision_dtype=lm.mixed_precision_dtype,
                truncation=lm.truncation,
                strategy="sequential",
            )
        finally:
            logger.setLevel(before)

    @contextmanager
    def reading(self, settings: Settings, requests: Sequence[Instance], prompts: Sequence[Prompt]) -> Iterator[None]:
        """Read requests under settings, each by the prompt that is given for it, while the context lasts."""
        self.given = {request.args[0]: prompt for request, prompt in zip(requests, prompts, strict=True)}
        with self.under(self.fitting(settings)):
            yield

    def fitting(self, settings: Settings) -> Settings:
        """Settings for as many layers as there are: numbers of layers, and tables of T and S, are the real model's."""
        return settings if self.whole else settings.with_(factors=None, recompute_layers=ALL_LAYERS)

    def split_requests(self, requests: Sequence[Instance], reserves: Sequence[int], quiet: bool) -> dict[str, Prompt]:
        """The prompts that were given."""
        return {request.args[0]: self.given[request.args[0]] for request in requests}

    def note_recomputed(self, prompt: Prompt, tokens: Sequence[int]) -> None:
        """Nothing is logged."""


def make_random(model: PreTrainedModel, layers: int, device: torch.device) -> PreTrainedModel:
    """A model of the same configuration with some of its layers, and weights drawn as before a training."""
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    whole = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        # What is said of each layer: its kind, whether it has rotary embeddings, and so on.
        if isinstance(value, list) and len(value) == whole:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.device(device):
        torch.manual_seed(0)
        made: PreTrainedModel = type(model)._from_config(
            config, dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
    made.name_or_path = model.name_or_path
    return made.eval()
