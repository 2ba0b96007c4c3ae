"""Cutting requests: whatever the text, the ids are the harness's own, in order, none lost unsaid."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import tiny
from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.prompt import Prompt, Retrieval, Source
from lm_eval_ape.prompts.splitter import Splitter
from lm_eval_ape.prompts.tally import warn_of
from lm_eval_ape.settings.strategy import resolve

TOKENIZER = tiny.make_tokenizer()
CONTEXT = "Passage 1:\nThe city of Köln.\nPassage 2:\nA 河流 and a film.\nPassage 3:\nThe end"


def tokenise(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    encoding = TOKENIZER(text, return_offsets_mapping=True)
    return encoding["input_ids"], encoding["offset_mapping"]


def split(text: str, doc: Any, *, max_length: int = 4096, reserve: int = 8, **given: Any) -> tuple[Prompt, Splitter]:
    splitter = Splitter(tokenise, resolve(given), max_length)
    return splitter.split(text, Source("task", 3, doc), reserve), splitter


def text_of(ids: tuple[int, ...]) -> str:
    return TOKENIZER.decode(ids)


@pytest.mark.parametrize("chunking", ["tokens", "passages", "separator"])
@pytest.mark.parametrize("chunk_tokens", [None, 1, 7])
def test_the_pieces_in_order_are_the_ids_of_the_whole_prompt(chunking: str, chunk_tokens: int | None) -> None:
    text = f"Answer the question.\n{CONTEXT}\n\nQuestion: Who?\nAnswer:"
    prompt, _ = split(text, {"context": CONTEXT}, chunking=chunking, chunk_tokens=chunk_tokens, separator="\n")
    assert list(prompt.ids) == TOKENIZER(text)["input_ids"]
    assert prompt.dropped == 0
    assert all(prompt.chunks)


def test_prefix_chunks_and_query_are_cut_where_the_text_is() -> None:
    text = f"Answer the question.\n{CONTEXT}\n\nQuestion: Who?\nAnswer:"
    prompt, _ = split(text, {"context": CONTEXT}, chunking="passages")
    assert text_of(prompt.prefix) == "<s>Answer the question.\n"
    assert [text_of(chunk) for chunk in prompt.chunks] == [
        "Passage 1:\nThe city of Köln.\n",
        "Passage 2:\nA 河流 and a film.\n",
        "Passage 3:\nThe end",
    ]
    assert text_of(prompt.query) == "\n\nQuestion: Who?\nAnswer:"


def test_a_chat_template_is_part_of_prefix_and_query() -> None:
    message = f"Answer.\n{CONTEXT}\nWho?"
    text = TOKENIZER.apply_chat_template([{"role": "user", "content": message}], tokenize=False)[3:]
    prompt, _ = split(text, {"context": CONTEXT}, chunking="passages")
    assert text_of(prompt.prefix) == "<s><|user|>user\n\nAnswer.\n"
    assert text_of(prompt.query) == "\nWho?<|end|>"


def test_a_context_whose_edges_a_template_stripped_is_found() -> None:
    prompt, _ = split("Go:A film.", {"context": "\nA film. \n"})
    assert text_of(prompt.chunks[0] + prompt.query) == "A film."


def test_the_last_of_several_occurrences_is_taken_and_counted() -> None:
    text = "A film. Yes? And A film. No?"
    prompt, splitter = split(text, {"context": "A film."})
    assert text_of(prompt.query) == " No?"
    assert sum(splitter.notes.values()) == 1
    assert "more than once" in next(iter(splitter.notes))


def test_special_token_text_in_a_document_keeps_the_ids_that_hf_gives_it() -> None:
    context = "A film</s> of <pad> people <|end|>."
    text = f"Go: {context} Who?"
    prompt, _ = split(text, {"context": context}, chunk_tokens=2)
    assert list(prompt.ids) == TOKENIZER(text)["input_ids"]
    assert {TOKENIZER.eos_token_id, TOKENIZER.pad_token_id} <= {i for chunk in prompt.chunks for i in chunk}


def test_a_context_at_the_very_start_has_bos_for_its_prefix() -> None:
    prompt, _ = split("A film. Who?", {"context": "A film."})
    assert prompt.prefix == (TOKENIZER.bos_token_id,)


def test_a_prefix_text_stands_in_only_where_none_is() -> None:
    with_text, _ = split("Go: A film. Who?", {"context": "A film."}, prefix="Read: ")
    without, _ = split("A film. Who?", {"context": "A film."}, prefix="Read: ")
    assert list(with_text.ids) == TOKENIZER("Go: A film. Who?")["input_ids"]
    assert text_of(without.prefix).startswith("<s>Read:")


def test_a_context_at_the_very_end_leaves_one_token_to_the_query() -> None:
    prompt, _ = split("Go: A film.", {"context": "A film."})
    assert len(prompt.query) == 1
    assert list(prompt.ids) == TOKENIZER("Go: A film.")["input_ids"]


def test_few_shot_prompts_are_cut_at_the_separator_and_the_last_part_is_the_query() -> None:
    text = "Q: a\nA: b\n\nQ: c\nA: d\n\nQ: e\nA:"
    prompt, _ = split(text, {"text": "e"}, chunking="separator")
    assert [text_of(chunk) for chunk in prompt.chunks] == ["Q: a\nA: b\n\n", "Q: c\nA: d\n\n"]
    assert text_of(prompt.query) == "Q: e\nA:"


@pytest.mark.parametrize(
    ("doc", "found"),
    [
        ({"question": "Who?"}, r"it has no field 'context' \(it has: question\)"),
        ({"context": ""}, "its field 'context' is empty"),
        ({"context": "elsewhere"}, "its field 'context' is not part of the prompt"),
    ],
)
def test_a_prompt_without_context_is_an_error_or_sequential_by_choice(doc: dict[str, str], found: str) -> None:
    with pytest.raises(ApeError, match=f"document 3 of task task: no context .*{found}"):
        split("Go: A film. Who?", doc)
    prompt, splitter = split("Go: A film. Who?", doc, no_context="sequential")
    assert prompt == Prompt((), (), tuple(TOKENIZER("Go: A film. Who?")["input_ids"]))
    assert "are read sequentially" in next(iter(splitter.notes))


def test_another_field_may_hold_the_context() -> None:
    prompt, _ = split("Go: A film. Who?", {"passage": "A film."}, context_field="passage")
    assert text_of(prompt.query) == " Who?"


def test_chunks_that_the_window_cannot_hold_are_cut_again_and_lose_nothing() -> None:
    text = f"Go: {CONTEXT} Who?"
    ids = TOKENIZER(text)["input_ids"]
    prompt, splitter = split(text, {"context": CONTEXT}, max_length=40, reserve=8)
    assert list(prompt.ids) == ids
    assert len(prompt.prefix) + max(map(len, prompt.chunks)) + len(prompt.query) + 8 <= 40
    assert "cut again" in next(iter(splitter.notes))


@pytest.mark.parametrize("given", [{"strategy": "sequential"}, {"strategy": "sink", "positions": "serial"}])
def test_a_context_that_one_sequence_cannot_hold_loses_its_middle_and_is_counted(given: dict[str, str]) -> None:
    text = f"Go: {CONTEXT} Who?"
    ids = TOKENIZER(text)["input_ids"]
    prompt, splitter = split(text, {"context": CONTEXT}, max_length=50, reserve=8, chunk_tokens=9, **given)
    assert len(prompt.ids) + 8 == 50
    assert prompt.dropped == len(ids) + 8 - 50
    assert list(prompt.ids[:10]) == ids[:10]
    assert list(prompt.ids[-10:]) == ids[-10:]
    assert any("lose the middle" in note for note in splitter.notes)


def test_a_query_that_leaves_no_room_is_an_error_before_anything_runs() -> None:
    with pytest.raises(
        ApeError, match=r"window of 20 tokens has no room for the context beside .* and 15 tokens to gen"
    ):
        split("Go: A film. Who? Who? Who?", {"context": "A film."}, max_length=20, reserve=15)


def test_two_hundred_chunks_and_one_chunk() -> None:
    context = "\n".join(f"Passage {n}:\na" for n in range(1, 201))
    many, _ = split(f"Go:\n{context}\nWho?", {"context": context}, chunking="passages")
    one, _ = split(f"Go:\n{context}\nWho?", {"context": context}, chunking="passages", max_chunks=1)
    assert len(many.chunks) == 200
    assert len(one.chunks) == 1
    assert many.ids == one.ids


def test_passages_without_headings_make_one_chunk_and_are_counted() -> None:
    prompt, splitter = split("Go: A film. Who?", {"context": "A film."}, chunking="passages")
    assert len(prompt.chunks) == 1
    assert "nothing to cut at with chunking=passages" in next(iter(splitter.notes))


def test_what_is_out_of_the_ordinary_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    splitter = Splitter(tokenise, resolve({}), 4096)
    for number in range(3):
        splitter.split("A film. A film. Who?", Source("task", number, {"context": "A film."}), 8)
    warn_of([splitter.tally()], splitter.settings)
    warn_of([splitter.tally()], splitter.settings)
    assert [record.getMessage() for record in caplog.records] == [
        "3 requests: they hold their context more than once; the last is taken."
    ]


@pytest.mark.parametrize("strategy", ["sequential", "parallel", "sink", "ape"])
@pytest.mark.parametrize(("text", "context"), [("Go: A film", " film"), ("Passage of film", "a"), ("Go: A film", "m")])
def test_a_context_without_a_token_of_its_own_loses_nothing(text: str, context: str, strategy: str) -> None:
    prompt, _ = split(text, {"context": context}, strategy=strategy)
    assert list(prompt.ids) == TOKENIZER(text)["input_ids"]
    assert prompt.chunks or not prompt.prefix, "a prompt without chunks is read from its query alone"


@pytest.mark.parametrize("chunks", [1, 2, 4, 64])
@pytest.mark.parametrize("positions", ["shared", "serial"])
def test_a_context_is_cut_evenly_into_as_many_chunks_as_asked_for(chunks: int, positions: str) -> None:
    context = CONTEXT * 3
    text = f"Go: {context} Who?"
    prompt, splitter = split(text, {"context": context}, chunks=chunks, positions=positions)
    assert list(prompt.ids) == TOKENIZER(text)["input_ids"]
    assert len(prompt.chunks) == chunks
    assert max(map(len, prompt.chunks)) - min(map(len, prompt.chunks)) <= 1
    assert not splitter.notes


def test_items_are_grouped_into_as_many_chunks_as_asked_for() -> None:
    context = "\n".join(f"Passage {n}:\na" for n in range(1, 65))
    for chunks in (1, 2, 4, 8, 16, 32, 64):
        prompt, _ = split(f"Go:\n{context}\nWho?", {"context": context}, chunking="passages", chunks=chunks)
        texts = [text_of(chunk) for chunk in prompt.chunks]
        assert len(texts) == chunks
        share = sum(map(len, prompt.chunks)) / chunks
        assert all(
            abs(len(chunk) - share) <= len(TOKENIZER("Passage 64:\na\n")["input_ids"]) for chunk in prompt.chunks
        )
        assert all(text.startswith("Passage") for text in texts)


@pytest.mark.parametrize(("chunking", "pieces"), [("passages", "pieces"), ("tokens", "tokens")])
def test_too_few_pieces_for_the_chunks_are_counted(chunking: str, pieces: str) -> None:
    context = CONTEXT if chunking == "passages" else " a b"
    prompt, splitter = split(f"Go:{context} Who?", {"context": context}, chunking=chunking, chunks=200)
    assert len(prompt.chunks) == (3 if chunking == "passages" else len(prompt.chunks))
    assert dict(splitter.notes) == {f"have fewer {pieces} than chunks=200": 1}


FILMS = "\n".join(
    ["Passage 1:\nA river.", "Passage 2:\nA film.", "Passage 3:\nA city.", "Passage 4:\nThe film of a father."]
)


@pytest.mark.parametrize("strategy", ["sequential", "parallel", "sink", "ape"])
def test_every_strategy_reads_the_retrieved_chunks_in_their_order(strategy: str) -> None:
    text = f"Go:\n{FILMS}\nWho is the father in the film?"
    prompt, splitter = split(
        text, {"context": FILMS}, strategy=strategy, chunking="passages", retriever="bm25", max_chunks=2
    )
    assert text_of(prompt.ids) == (
        "<s>Go:\nPassage 2:\nA film.\nPassage 4:\nThe film of a father.\nWho is the father in the film?"
    )
    assert prompt.retrieval == Retrieval(kept=(1, 3), chunks=4)
    assert prompt.dropped == len(TOKENIZER(text)["input_ids"]) - len(prompt.ids)
    assert bool(prompt.chunks) == (strategy != "sequential")
    if prompt.chunks:
        assert text_of(prompt.prefix) == "<s>Go:\n"
        assert [text_of(chunk) for chunk in prompt.chunks] == [
            "Passage 2:\nA film.\n",
            "Passage 4:\nThe film of a father.",
        ]
    assert not splitter.notes


@pytest.mark.parametrize("chunking", ["tokens", "separator"])
def test_chunks_of_tokens_and_of_separated_items_are_retrieved(chunking: str) -> None:
    text = f"Go:\n{FILMS}\nWho is the father?"
    prompt, _ = split(
        text, {"context": FILMS}, chunking=chunking, separator="\n", chunk_tokens=9, retriever="bm25", max_chunks=2
    )
    assert len(prompt.chunks) == 2
    assert "father" in text_of(prompt.chunks[-1])
    assert max(map(len, prompt.chunks)) <= 9


def test_retrieval_is_warned_about_once_with_its_counts(caplog: pytest.LogCaptureFixture) -> None:
    splitter = Splitter(tokenise, resolve({"chunking": "passages", "retriever": "bm25", "max_chunks": 1}), 4096)
    text = f"Go:\n{FILMS}\nWho is the father?"
    prompts = [splitter.split(text, Source("task", number, {"context": FILMS}), 8) for number in range(3)]
    warn_of([splitter.tally()], splitter.settings)
    warn_of([splitter.tally()], splitter.settings)
    tokens = 3 * prompts[0].dropped
    assert [record.getMessage() for record in caplog.records] == [
        f"retriever=bm25 with max_chunks=1: of 3 requests' 12 chunks it dropped 9, with {tokens} tokens."
    ]


def test_a_context_of_few_enough_chunks_is_read_whole_and_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    text = f"Go:\n{FILMS}\nWho?"
    with_preset, splitter = split(text, {"context": FILMS}, preset="C200x20", strategy="sequential")
    without, _ = split(text, {"context": FILMS}, strategy="sequential")
    warn_of([splitter.tally()], splitter.settings)
    assert with_preset.ids == without.ids
    assert (with_preset.dropped, with_preset.retrieval) == (0, Retrieval(kept=(0,), chunks=1))
    assert not caplog.records


def test_a_context_that_nothing_follows_keeps_its_first_chunks_and_is_counted() -> None:
    prompt, splitter = split(f"Go:\n{FILMS}", {"context": FILMS}, chunking="passages", retriever="bm25", max_chunks=2)
    assert prompt.retrieval == Retrieval(kept=(0, 1), chunks=4)
    assert any("no text after their context" in note for note in splitter.notes)


def test_what_retrieval_keeps_and_the_window_cannot_hold_is_dropped_too() -> None:
    text = f"Go:\n{FILMS}\nWho is the father in the film?"
    given = {"strategy": "sequential", "chunking": "passages", "retriever": "bm25", "max_chunks": 2}
    prompt, _ = split(text, {"context": FILMS}, max_length=40, reserve=8, **given)
    assert len(prompt.ids) == 32
    assert prompt.dropped == len(TOKENIZER(text)["input_ids"]) - 32
