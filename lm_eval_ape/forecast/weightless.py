"""`ape-hf` without weights: it cuts every prompt as the real one does, and answers none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.utils_hf import get_dtype
from transformers import AutoConfig, GenerationConfig

from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.arguments import IDLE
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.options import HarnessOptions

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# Arguments that change the weights, their precision, or where they lie.
_NOT_COUNTED = ("peft", "delta", "autogptq", "gptqmodel", "quantization_config", "load_in_4bit", "load_in_8bit")
_SPREAD = ("parallelize", "tp_plan", "device_map")


@dataclass
class Asked:
    """What the harness asked for last.

    Attributes:
        requests: The requests.
        prompts: Their prompts by their texts; none where the harness reads whole texts itself.
    """

    requests: list[Instance] = field(default_factory=list)
    prompts: Mapping[str, Prompt] = field(default_factory=dict)


class WeightlessApeHFLM(ApeHFLM):
    """`ape-hf` whose model is a shape on device `meta`; tokenizer, window and settings are the real ones.

    Its methods cut and check requests, and leave them in `asked`.

    Attributes:
        asked: The requests of the last call.
        not_counted: What of the model's arguments the forecast takes no account of, in sentences.
    """

    def __init__(self, pretrained: str, **arguments: Any) -> None:
        self.asked = Asked()
        self.not_counted: list[str] = []
        super().__init__(pretrained, **arguments)

    @classmethod
    def of(cls, arguments: Mapping[str, Any], options: HarnessOptions) -> WeightlessApeHFLM:
        """From the arguments of the model of a run, but for what writes files and what is checked against weights.

        Raises:
            ApeError: As `ApeHFLM`, but for what only weights can show.
        """
        given = {name: value for name, value in arguments.items() if name not in (*IDLE, "calibration")}
        lm: WeightlessApeHFLM = cls.create_from_arg_obj(
            given, {"batch_size": options.batch_size, "device": options.device}
        )
        return lm

    def _create_model(
        self,
        pretrained: str,
        *,
        revision: str | None = "main",
        dtype: str | torch.dtype | None = "auto",
        trust_remote_code: bool | None = False,
        gguf_file: str | None = None,
        subfolder: str = "",
        **given: Any,
    ) -> None:
        named = {name for name in (*_NOT_COUNTED, *_SPREAD) if given.get(name)}
        if changed := sorted(named - set(_SPREAD)):
            self.not_counted.append(
                f"{', '.join(changed)}: weights are counted, and time is measured, as those of the plain model."
            )
        if spread := sorted(named & set(_SPREAD)):
            self.not_counted.append(f"{', '.join(spread)}: memory is that of all devices together, time that of one.")
        where = {"revision": revision, "subfolder": subfolder, "trust_remote_code": trust_remote_code}
        config, further = AutoConfig.from_pretrained(
            pretrained, **where, gguf_file=gguf_file, return_unused_kwargs=True, **self._of_config(given)
        )
        precision = get_dtype(dtype)
        if not isinstance(precision, torch.dtype):
            precision = config.get_text_config().dtype or torch.float32
        kept = ("attn_implementation", "experts_implementation")
        options = {name: further[name] for name in kept if further.get(name) is not None}
        # As the run itself gets them.
        options |= {"dtype": precision, "trust_remote_code": trust_remote_code}
        with torch.device("meta"):
            model = self.AUTO_MODEL_CLASS.from_config(config, **options)
        try:
            model.generation_config = GenerationConfig.from_pretrained(pretrained, **where)
        except OSError:
            logger.debug("%s has no generation_config.json.", pretrained)
        # The parent moves what it has made to its device, and here there is nothing to move.
        model.to = lambda *_, **__: model
        model.name_or_path = pretrained
        self._model = model

    @staticmethod
    def _of_config(given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that may be fields of the configuration."""
        of_loading = {*_NOT_COUNTED, *_SPREAD, "gpus", "max_memory_per_gpu", "max_cpu_memory", "offload_folder"}
        return {name: value for name, value in given.items() if name not in of_loading}

    def _answer(
        self, requests: list[Instance], prompts: Mapping[str, Prompt], work: Callable[[list[Instance]], list[Answer]]
    ) -> list[Answer]:
        self.asked = Asked(requests, prompts)
        return []

    def ask(self, kind: str, requests: Sequence[Instance]) -> Asked:
        """Cut and check requests of one kind, as the harness would have them answered.

        Args:
            kind: `generate_until`, `loglikelihood` or `loglikelihood_rolling`.
            requests: The requests.

        Raises:
            ApeError: A request cannot be cut, or asks for what cannot be done.
        """
        getattr(self, kind)(list(requests), disable_tqdm=True)
        return self.asked

    def continuation(self, request: Instance) -> tuple[int, ...]:
        """The tokens that a request of `loglikelihood` has scored."""
        text, following = request.args
        if text:
            return tuple(self._encode_pair(text, following)[1])
        return tuple(self.tok_encode(following, add_special_tokens=False))
