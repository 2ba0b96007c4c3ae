"""What tells a model from every other one: its weights, its configuration, its tokenizer, and the code that runs it.

Whatever is kept from run to run (responses, teachers, divergences, keys and values) is kept under these digests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any
from weakref import WeakKeyDictionary

import torch
import xxhash
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm_eval_ape.errors import ApeError
from lm_eval_ape.version import __version__

# Fields of a configuration that say where a model comes from or how it is run, not what it computes.
_IDLE = frozenset(
    {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache", "output_attentions"}
    | {"output_hidden_states", "return_dict", "problem_type", "id2label", "label2id"}
)
# Weights are copied to the CPU in parts of this many bytes.
_PART = 2**28
# The digests of models in memory, each with the state of its tensors, so that none is read twice.
_known: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


@torch.no_grad()
def full_digest(model: PreTrainedModel) -> str:
    """Digest of every byte of a model's weights and buffers, and of its configuration.

    A sample of the weights tells two trainings apart, but not a model from the same one with a single number edited.
    Reading all of them takes as long as copying them once, and a model that has not changed is not read again.

    Raises:
        ApeError: Some weights are offloaded to where they cannot be read.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _IDLE}
    # An adapter's scaling stands in its configuration alone.
    adapters = {name: adapter.to_dict() for name, adapter in getattr(model, "peft_config", {}).items()}
    words = json.dumps([config, adapters], sort_keys=True, default=_plain)
    tensors = list(_tensors(model))
    state = words, [(name, tensor.data_ptr(), _edits(tensor)) for name, _, tensor in tensors]
    if model in _known and _known[model][0] == state:
        return _known[model][1]
    digest = xxhash.xxh3_128(words.encode())
    for name, module, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        _update(digest, _offloaded(name, module) if tensor.device.type == "meta" else tensor)
    _known[model] = state, digest.hexdigest()
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON does not know; a set's order would differ from process to process."""
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)


def _tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """All parameters and buffers, each with its whole name and the module that holds it."""
    for path, module in model.named_modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            yield f"{path}.{name}", module, tensor


def _offloaded(name: str, module: nn.Module) -> Tensor:
    """A weight that accelerate has put on the CPU or on disk."""
    weights: Mapping[str, Tensor] = getattr(getattr(module, "_hf_hook", None), "weights_map", None) or {}
    try:
        return weights[name.rpartition(".")[2]]
    except KeyError:
        raise ApeError(
            f"The model must be known by its weights, but {name} is offloaded and cannot be read; load the model "
            "without offloading, or keep nothing (no kv_cache_dir, no --use_cache, no output folder)."
        ) from None


def _edits(tensor: Tensor) -> int:
    """How often a tensor has been written to; those made for inference alone do not count it."""
    return -1 if tensor.is_inference() else tensor._version


def _update(digest: xxhash.xxh3_128, tensor: Tensor) -> None:
    flat = tensor.detach().reshape(-1)
    step = max(1, _PART // max(1, flat.element_size()))
    for first in range(0, flat.numel(), step):
        digest.update(flat[first : first + step].contiguous().view(torch.uint8).cpu().numpy().data)


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest of a fast tokenizer: its vocabulary, rules, special tokens and chat template."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    # These two follow the last call, and every call says anew what it wants.
    del rules["padding"], rules["truncation"]
    content = [rules, tokenizer.special_tokens_map, tokenizer.chat_template]
    return xxhash.xxh3_128(json.dumps(content, sort_keys=True, default=_plain).encode()).hexdigest()


def code_versions() -> dict[str, str]:
    """Versions of the code whose change may change a model's numbers by more than rounding."""
    return {"lm_eval_ape": __version__, "transformers": version("transformers")}
