"""Tiny random models and a tokenizer, made on the spot: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIALS = ["<pad>", "<s>", "</s>", "<|user|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|user|>{{ message['role'] }}\n\n"
    "{{ message['content'] | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|user|>assistant\n\n{% endif %}"
)
TEXTS = [
    "Answer the question based on the given passages. Only give me the answer and do not output any other words.",
    "Passage 1:\nThe following are given passages about cities, films, rivers and people who were born in them.",
    "Question: Who is the father of the director of the film?\nAnswer: 请基于给定的文章回答下述问题。文章1 段落2",
]

COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # Large weights, so that attention is far from uniform and a wrong mask or position shows.
    "initializer_range": 0.3,
}

WINDOW = 6

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama3": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": WINDOW, "head_dim": 8}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "sliding_window": WINDOW, "attn_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 8, "sliding_window": WINDOW}),
    "phi3": ("Phi3Config", {}),
    "gpt_neox": ("GPTNeoXConfig", {"rotary_pct": 0.5}),
    "olmo2": ("Olmo2Config", {}),
    "cohere": ("CohereConfig", {}),
    "granite": ("GraniteConfig", {}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "sliding_window": WINDOW}),
    "gpt_oss": (
        "GptOssConfig",
        {"head_dim": 8, "num_local_experts": 4, "sliding_window": WINDOW, "rope_parameters": None},
    ),
}


def make_model(
    family: str = "llama", *, dtype: torch.dtype = torch.float64, vocab_size: int = 97, layers: int = 3
) -> PreTrainedModel:
    """Builds a random model; the same weights each time."""
    config_class, special = FAMILIES[family]
    sizes = {**COMMON, "vocab_size": vocab_size, "num_hidden_layers": layers}
    config = getattr(transformers, config_class)(**{**sizes, **special})
    torch.manual_seed(0)
    # Some versions of transformers would let Gemma 2 run on a kernel that leaves its softcap out.
    options = {"attn_implementation": "eager"} if family == "gemma2" else {}
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=dtype, experts_implementation="eager", **options
    )
    return double_frequencies(model).eval() if dtype == torch.float64 else model.eval()


def double_frequencies(model: PreTrainedModel) -> PreTrainedModel:
    """Turn the frequencies of rotary embeddings, which stay in float32, into float64; models cast them before use."""
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name.endswith("inv_freq"):
                module.register_buffer(name, buffer.double(), persistent=False)
    return model


class InDouble(TorchDispatchMode):
    """While it lasts, what casts to float32 (norms, rotary embeddings, eager softmaxes) stays in float64.

    Such casts hide differences in a float64 model. Models must have gone through `double_frequencies`.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def make_tokenizer(texts: Sequence[str] = TEXTS, size: int = 600) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer of `size` tokens, with a chat template and a BOS token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=CHAT_TEMPLATE,
    )


def save_checkpoint(
    folder: Path,
    family: str = "llama",
    dtype: torch.dtype = torch.float32,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> str:
    """Writes a random model with the tokenizer, as a checkpoint from the hub would lie on disk."""
    tokenizer = tokenizer or make_tokenizer()
    make_model(family, dtype=dtype, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
