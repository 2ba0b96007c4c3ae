"""Few-shot examples: each in one piece, and the question in the query, whatever template and separator there are."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from helpers.templates import TEMPLATES, chat_format, make_tokenizer
from lm_eval_ape.prompts.prompt import Prompt, Source
from lm_eval_ape.prompts.splitter import Splitter
from lm_eval_ape.settings.strategy import resolve

INTRODUCTION = "Answer the questions.\n\n"
DOC = {"question": "Who is the director of the film?", "answer": "the father", "number": 3}


def question(asked: str, form: str) -> str:
    """A question as a task writes it."""
    return {
        "marked": f"Question: {asked}\nAnswer:",
        "bare": f"{asked}\nAnswer:",
        "long": f"Passage\n\nA city.\n\nMore of it.\n\nQuestion: {asked}\n\nAnswer:",
        "unmarked": f"Q: {asked}",
    }[form]


def shots(form: str) -> list[tuple[str, str]]:
    """Questions of examples with their answers; one of them is the answer of the question that is asked."""
    answers = ["reply1", "the father", "reply3"]
    return [(question(f"ask{number}?", form), answer) for number, answer in enumerate(answers, start=1)]


def split(tokenizer: PreTrainedTokenizerFast, text: str, separator: str, doc: Any = DOC) -> tuple[str, list[str], str]:
    """Prefix, chunks and query as text; together they must be the prompt's ids."""

    def tokenise(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        special = not text.startswith(tokenizer.bos_token)
        encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
        return encoding["input_ids"], encoding["offset_mapping"]

    settings = resolve({"chunking": "separator", "separator": separator})
    prompt: Prompt = Splitter(tokenise, settings, 4096).split(text, Source("task", 0, doc), 8)
    assert list(prompt.ids) == tokenise(text)[0]
    return (
        tokenizer.decode(prompt.prefix),
        [tokenizer.decode(chunk) for chunk in prompt.chunks],
        tokenizer.decode(prompt.query),
    )


def assert_whole(form: str, chunks: list[str], query: str) -> None:
    """Each example in a chunk of its own, and the question in the query alone."""
    assert len(chunks) == 3
    for (asked, answer), chunk in zip(shots(form), chunks, strict=True):
        # A template's space before a message may be one token with its first letter.
        _, found, after = chunk.partition(asked[1:])
        assert found
        assert answer in after
    assert question(DOC["question"], form) in query
    assert not any(asked in query for asked, _ in shots(form))


FORMS = ["marked", "bare", "long", "unmarked"]


def plain(form: str) -> str:
    """A few-shot prompt as the harness writes it without a template, nothing before it."""
    examples = "".join(f"{asked} {answer}\n\n" for asked, answer in shots(form))
    return examples + question(DOC["question"], form)


@pytest.mark.parametrize("bos", [True, False], ids=["BOS", "no BOS"])
@pytest.mark.parametrize("separator", ["\n\n", "\n"], ids=["blank line", "line break"])
@pytest.mark.parametrize("form", FORMS)
def test_plain_examples_stay_whole(form: str, separator: str, bos: bool) -> None:
    tokenizer = make_tokenizer(TEMPLATES["chatml"], bos=bos)
    prefix, chunks, query = split(tokenizer, plain(form), separator)
    assert prefix == (tokenizer.bos_token if bos else "")
    assert_whole(form, chunks, query)


@pytest.mark.parametrize("bos", [True, False], ids=["BOS", "no BOS"])
@pytest.mark.parametrize("separator", ["\n\n", "\n"], ids=["blank line", "line break"])
@pytest.mark.parametrize("system", [True, False], ids=["system", "no system"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_examples_in_one_message_stay_whole(name: str, form: str, system: bool, separator: str, bos: bool) -> None:
    template = TEMPLATES[name]
    tokenizer = make_tokenizer(template, bos=bos)
    history = [{"role": "system", "content": "Be brief."}] if system else []
    text = chat_format(tokenizer, **template.arguments).text([*history, {"role": "user", "content": plain(form)}], True)
    prefix, chunks, query = split(tokenizer, text, separator)
    assert_whole(form, chunks, query)
    assert (prefix.startswith("<s>") or not bos) or not template.bos
    # All that the template writes before the message is the prefix, and all after it the query.
    assert prefix + "".join(chunks) + query == ("<s>" if bos and not template.bos else "") + text
    assert chunks[0] in plain(form)


@pytest.mark.parametrize("bos", [True, False], ids=["BOS", "no BOS"])
@pytest.mark.parametrize("separator", ["\n\n", "\n"], ids=["blank line", "line break"])
@pytest.mark.parametrize("system", [True, False], ids=["system", "no system"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_examples_as_turns_stay_whole(name: str, form: str, system: bool, separator: str, bos: bool) -> None:
    template = TEMPLATES[name]
    tokenizer = make_tokenizer(template, bos=bos)
    history = [{"role": "system", "content": "Be brief."}] if system else []
    for asked, answer in shots(form):
        history += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    history.append({"role": "user", "content": question(DOC["question"], form)})
    text = chat_format(tokenizer, **template.arguments).text(history, True)
    prefix, chunks, query = split(tokenizer, text, separator)
    assert_whole(form, chunks, query)
    assert prefix, "there is always something to share"


@pytest.mark.parametrize("separator", ["\n\n", "\n"], ids=["blank line", "line break"])
def test_an_introduction_is_prefix(separator: str) -> None:
    tokenizer = make_tokenizer(TEMPLATES["chatml"])
    prefix, chunks, query = split(tokenizer, INTRODUCTION + plain("marked"), separator)
    assert prefix == "<s>" + INTRODUCTION
    assert_whole("marked", chunks, query)


def test_an_answer_of_several_paragraphs_stays_with_its_question() -> None:
    tokenizer = make_tokenizer(TEMPLATES["chatml"])
    text = "".join(f"Question: ask{n}?\nAnswer: First.\n\nThen.\n\nSo {n}.\n\n" for n in (1, 2, 3))
    _, chunks, query = split(tokenizer, text + question(DOC["question"], "marked"), "\n\n")
    assert [chunk.rstrip()[-5:] for chunk in chunks] == ["So 1.", "So 2.", "So 3."]
    assert query == question(DOC["question"], "marked")


def test_passages_with_blank_lines_stay_whole_where_nothing_is_written_before_them() -> None:
    tokenizer = make_tokenizer(TEMPLATES["chatml"])
    passages = [f"A film {n}.\n\nMore of film {n}." for n in (1, 2, 3, 4)]
    texts = [f"{passage}\nQuestion: Who {n}?\nAnswer:" for n, passage in enumerate(passages, start=1)]
    doc = {"passage": passages[3], "question": "Who 4", "label": 1}
    _, chunks, query = split(tokenizer, " yes\n\n".join(texts), "\n\n", doc)
    assert [chunk.removesuffix(" yes\n\n") for chunk in chunks] == texts[:3]
    assert query == texts[3]


def test_the_options_of_a_question_belong_to_it() -> None:
    tokenizer = make_tokenizer(TEMPLATES["chatml"])
    asked = [f"Which is {n}?\nA. city\nB. {n}\nAnswer:" for n in (1, 2, 3)]
    doc = {"question": "Which is 3?", "choices": ["city", "3"], "answer": "B"}
    _, chunks, query = split(tokenizer, " B\n\n".join(asked), "\n", doc)
    assert [chunk.removesuffix(" B\n\n") for chunk in chunks] == asked[:2]
    assert query == asked[2]


def test_a_document_of_which_the_prompt_says_nothing_is_cut_at_the_last_separator() -> None:
    tokenizer = make_tokenizer(TEMPLATES["chatml"])
    _, chunks, query = split(tokenizer, "Q: a\nA: b\n\nQ: c\nA: d\n\nQ: e\nA:", "\n\n", {"id": 7})
    assert chunks == ["Q: a\nA: b\n\n", "Q: c\nA: d\n\n"]
    assert query == "Q: e\nA:"
