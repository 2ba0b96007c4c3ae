"""Keeps the harness's response cache from answering for another model or other settings than it was filled with.

The harness finds a cached response by the request's text and options alone, so answers of one (T, S) would be served
for another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Protocol

import torch
from lm_eval.api.model import CacheHook
from transformers import PreTrainedModel

from lm_eval_ape.artefacts.model_digest import code_versions, full_digest, tokenizer_digest
from lm_eval_ape.engine.non_finite import NotFiniteError
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.strategy import Settings

# Response keys are SHA-256 digests, so this one can never be one of them.
STAMP = "lm_eval_ape"
# Of a model's defaults for generation, those that say where they come from.
_IDLE_DEFAULTS = frozenset({"transformers_version", "_from_model_config"})


class Responder(Protocol):
    """What gives the responses: the harness's model, with settings of how it reads prompts."""

    model: PreTrainedModel
    tokenizer: Any
    pretrained: Any
    revision: str
    peft: str | None
    delta: str | None
    mixed_precision_dtype: Any
    softmax_dtype: Any
    max_length: int
    max_gen_toks: int
    truncation: bool
    add_bos_token: bool | None
    prefix_token_id: int
    think_end_token: Any

    @property
    def settings(self) -> Settings:
        """How prompts are read."""


def identity(lm: Responder) -> dict[str, Any]:
    """All that a response depends on beside its request: the model to its last weight, and how prompts are read.

    Batch size, device, and where encoded chunks are kept change a response by rounding at most, and are left out.
    """
    defaults = lm.model.generation_config.to_dict()
    return {
        "pretrained": getattr(lm.pretrained, "name_or_path", lm.pretrained),
        "revision": lm.revision,
        "peft": lm.peft,
        "delta": lm.delta,
        "dtype": str(lm.model.dtype),
        "weights": full_digest(lm.model),
        "tokenizer": tokenizer_digest(lm.tokenizer),
        "attn_implementation": lm.model.config._attn_implementation,
        "mixed_precision_dtype": str(lm.mixed_precision_dtype),
        "softmax_dtype": str(lm.softmax_dtype),
        "max_length": lm.max_length,
        "max_gen_toks": lm.max_gen_toks,
        "truncation": lm.truncation,
        "add_bos_token": lm.add_bos_token,
        "prefix_token_id": lm.prefix_token_id,
        "think_end_token": lm.think_end_token,
        "generation": {name: value for name, value in defaults.items() if name not in _IDLE_DEFAULTS},
        **{f"version of {name}": number for name, number in code_versions().items()},
        **lm.settings.record,
    }


class FiniteResponses(CacheHook):
    """The harness's hook into its cache, by which every response goes: a score that is not finite goes no further.

    Args:
        hook: What the harness gave.
        dtype: The model's precision, for the error.
    """

    def __init__(self, hook: CacheHook, dtype: torch.dtype) -> None:
        super().__init__(None)
        self.dbdict = hook.dbdict
        self.dtype = dtype

    def add_partial(self, attr: str, req: Sequence[Any], res: Any) -> None:
        """Keep a response.

        Raises:
            NotFiniteError: It is a log-likelihood that is not finite.
        """
        number = res[0] if isinstance(res, tuple) else res
        if isinstance(number, float) and not math.isfinite(number):
            raise NotFiniteError("the log-likelihood is", self.dtype, request=req[0])
        super().add_partial(attr, req, res)


def guard(responses: MutableMapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Stamp an empty cache with what its responses will depend on, and refuse one with another stamp.

    Args:
        responses: The harness's open cache, from key to response.
        identity: Model and settings, of JSON types.

    Raises:
        ApeError: The cache was filled by another model or with other settings.
    """
    own = json.loads(json.dumps(identity, default=str))
    if STAMP not in responses:
        if len(responses):
            raise ApeError(
                "The file given to --use_cache was filled by another model than ape-hf, and its responses cannot be "
                "distinguished from this run's; give another path."
            )
        responses[STAMP] = own
        return
    stamp = responses[STAMP]
    if stamp != own:
        names = sorted(key for key in own.keys() | stamp.keys() if own.get(key) != stamp.get(key))
        changes = ", ".join(f"{name}: {stamp.get(name)!r} there, {own.get(name)!r} here" for name in names)
        raise ApeError(
            f"The file given to --use_cache holds responses of other settings ({changes}); "
            "give each setting a path of its own."
        )
