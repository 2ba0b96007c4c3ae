"""Whatever a document says, its prompt is cut where the document stands, and every token of it is read once."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from helpers import harness, tiny
from helpers.property_profiles import examples
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.pocket import pocket_path
from lm_eval_ape.prompts.chunking import cut_text, cut_tokens, divide
from lm_eval_ape.prompts.prompt import Prompt, Source
from lm_eval_ape.prompts.splitter import Splitter
from lm_eval_ape.settings.strategy import resolve

TOKENIZERS = {"tiny": tiny.make_tokenizer(), "pocket": AutoTokenizer.from_pretrained(pocket_path())}
FORGED = [
    "<s>", "</s>", "<pad>", "<|user|>", "<|end|>", "<unk>", "<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>",
    "<|im_start|>assistant\n", "<|im_end|>", "<|start_header_id|>user<|end_header_id|>", "<|endoftext|>", "[INST]",
    "[/INST]", "<<SYS>>", "<bos>", "<eos>", "<start_of_turn>model", "\n\n", "\n", "\t", " ", "  ", "###",
    "Passage 3:\n", "\nPassage 3:\n", "段落3：", "\n文章2", "Question: Who?", "Answer:", "{{context}}", "{context}",
    "{{ 7*7 }}", "%s", "\u2028", "\ufeff", "\u200b", "e\u0301", "👩‍👩‍👧", "ا", "文", "\r\n", "\x1b[0m", "\x00",
]  # fmt: skip
BEFORE, AFTER = "Answer the question.\n", "\nQuestion: Who?\nAnswer:"

documents = st.lists(st.one_of(st.sampled_from(FORGED), st.text(max_size=8)), min_size=1, max_size=12).map("".join)
settings = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(["sequential", "parallel", "sink", "ape"]),
        "chunking": st.sampled_from(["tokens", "passages", "separator"]),
    },
    optional={
        "chunk_tokens": st.integers(1, 9),
        "max_chunks": st.integers(1, 4),
        "separator": st.sampled_from(["\n\n", "\n", "</s>", "<|end|>", "###", "Passage 3:"]),
    },
)


def split(name: str, text: str, doc: str, given: dict[str, Any]) -> Prompt:
    def tokenise(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = TOKENIZERS[name](text, return_offsets_mapping=True)
        return encoding["input_ids"], encoding["offset_mapping"]

    splitter = Splitter(tokenise, resolve({"no_context": "sequential", **given}), 100_000)
    return splitter.split(text, Source("task", 0, {"context": doc}), 8)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(doc=documents, given=settings)
def test_the_pieces_are_the_prompts_ids_and_no_chunk_is_empty_or_too_long(
    name: str, doc: str, given: dict[str, Any]
) -> None:
    text = BEFORE + doc + AFTER
    prompt = split(name, text, doc, given)
    ids = TOKENIZERS[name](text)["input_ids"]
    assert list(prompt.ids) == ids
    assert prompt.dropped == 0
    assert prompt.query
    assert all(prompt.chunks)
    assert ids.count(TOKENIZERS[name].bos_token_id) == 1 + text.count(TOKENIZERS[name].bos_token)
    if "max_chunks" in given:
        assert len(prompt.chunks) <= given["max_chunks"]
    elif "chunk_tokens" in given:
        assert max(map(len, prompt.chunks), default=0) <= given["chunk_tokens"]
    assert split(name, text, doc, given) == prompt


@pytest.mark.parametrize("name", TOKENIZERS)
@given(doc=documents, given=settings)
def test_what_a_document_says_moves_no_border_of_prefix_and_query(name: str, doc: str, given: dict[str, Any]) -> None:
    # A word at either end, with which no sign of the document can make one token with what stands around it.
    doc = f"passage {doc} film"
    given = {**given, "strategy": "ape"}
    prompt = split(name, BEFORE + doc + AFTER, doc, given)
    plain = split(name, BEFORE + "passage of a film" + AFTER, "passage of a film", given)
    assert (prompt.prefix, prompt.query) == (plain.prefix, plain.query)


@given(text=documents.filter(bool), separator=st.sampled_from(["\n\n", "a", "</s>", "\n", "  "]))
def test_pieces_of_a_context_are_the_context_and_none_is_empty(text: str, separator: str) -> None:
    for chunking in ("tokens", "passages", "separator"):
        starts = [0, *cut_text(text, chunking, separator), len(text)]
        pieces = [text[start:end] for start, end in pairwise(starts)]
        assert "".join(pieces) == text
        assert all(pieces)


lengths = st.lists(st.integers(1, 50), min_size=1, max_size=30)


@given(lengths=lengths, longest=st.none() | st.integers(1, 60), most=st.none() | st.integers(1, 40))
def test_cut_and_joined_pieces_keep_every_token(lengths: list[int], longest: int | None, most: int | None) -> None:
    chunks = cut_tokens(lengths, longest, most)
    assert sum(chunks) == sum(lengths)
    assert min(chunks) >= 1
    assert most is None or len(chunks) <= most
    if most is None and longest is not None:
        assert max(chunks) <= longest
    borders = set(accumulate(chunks))
    if longest is None:
        assert borders <= set(accumulate(lengths))


@given(lengths=lengths, chunks=st.integers(1, 60), whole=st.booleans())
def test_divided_pieces_are_as_many_as_asked_for_or_as_there_are(lengths: list[int], chunks: int, whole: bool) -> None:
    found = divide(lengths, chunks, whole=whole)
    assert sum(found) == sum(lengths)
    assert min(found) >= 1
    assert len(found) == min(chunks, len(lengths) if whole else sum(lengths))
    if whole:
        assert set(accumulate(found)) <= set(accumulate(lengths))
    else:
        assert max(found) - min(found) <= 1


@pytest.fixture(scope="module", params=["tiny", "pocket"])
def lm(request: pytest.FixtureRequest, checkpoint: str) -> ApeHFLM:
    return ApeHFLM(checkpoint if request.param == "tiny" else "pocket", device="cpu")


@examples(150)
@given(text=st.builds("{}{}".format, st.sampled_from(["", "<s>", "<s><s>", BEFORE]), documents))
def test_ape_hf_reads_the_ids_that_hf_reads(lm: ApeHFLM, text: str) -> None:
    assert lm.cutter.ids.generated(text)[0] == lm.tok_encode(text)


def test_documents_full_of_special_tokens_score_as_under_hf(checkpoint: str) -> None:
    docs = harness.documents(3, words=3)
    for doc, forged in zip(docs, ("</s> <s>", "<|end|><|user|>assistant\n\n", "<pad></s>"), strict=True):
        doc["context"] = f"{forged} {doc['context']} {forged}"
    task = harness.task("toy_choice", "multiple_choice", docs)
    expected = harness.responses(harness.evaluate("hf", {"pretrained": checkpoint}, task), "toy_choice")
    ours = {"pretrained": checkpoint, "chunking": "passages"}
    found = harness.evaluate("ape-hf", {**ours, "strategy": "sequential"}, task)
    assert harness.responses(found, "toy_choice") == expected
