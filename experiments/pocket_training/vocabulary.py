"""The word-level tokenizer: one token a word, punctuation mark, number or line end."""

from __future__ import annotations

import re
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lm_eval_ape.pocket import passages, questions
from lm_eval_ape.pocket.names import ENTITY

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
_TOKEN: Final = r"\w+|[^\w\s]|\n"
_FIELD: Final = re.compile(r"{\w+}")
# The instruction that parallel encoding of contexts is often given as a shared prefix.
_SINK_PREFIX: Final = "Given the following contexts, answer the final question accordingly:"


def split_words(text: str) -> list[str]:
    """The tokens of a text, as strings."""
    return re.findall(_TOKEN, text)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer whose vocabulary is every word that the pocket world can use.

    Encoding puts BOS in front; decoding puts a space between words, but none before punctuation or
    around a line end, so it gives back the generator's text exactly.
    """
    source = [*passages.texts(), *questions.texts(), _SINK_PREFIX]
    source += [" ".join(names) for names in ENTITY.values()]
    words = sorted({word for text in source for word in split_words(_FIELD.sub(" ", text))})
    vocabulary = {token: i for i, token in enumerate([PAD, BOS, EOS, UNK, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_TOKEN), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    glued = [decoders.Replace(f" {mark}", mark) for mark in (".", ",", ":", "?", "\n")]
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            *glued,
            decoders.Replace("\n ", "\n"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
