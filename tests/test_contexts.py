"""Where contexts are found: by the rule, in fields and lists that are named, by patterns, by tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import tiny
from helpers.templates import TEMPLATES, chat_format, make_tokenizer
from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.contexts import Context, by_fields, by_length
from lm_eval_ape.prompts.prompt import Prompt, Source
from lm_eval_ape.prompts.splitter import Splitter
from lm_eval_ape.settings.strategy import resolve

TOKENIZER = tiny.make_tokenizer()
PASSAGE = "The city of Köln lies by a river. Many people were born there."
ASKED = "Who was born in the city?"
DOC = {"id": "a7", "article": PASSAGE, "question": ASKED, "options": [PASSAGE + " Not.", "B"], "answer": "B"}
PROMPT = f"Answer.\n{PASSAGE}\n\nQuestion:\n{ASKED}\nAnswer:"


def tokenise(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    encoding = TOKENIZER(text, return_offsets_mapping=True)
    return encoding["input_ids"], encoding["offset_mapping"]


def split(text: str, doc: Any, task: str = "task", **given: Any) -> tuple[Prompt, Splitter]:
    splitter = Splitter(tokenise, resolve(given), 4096)
    return splitter.split(text, Source(task, 0, doc), 8), splitter


def context(text: str, doc: Any, task: str = "task", **given: Any) -> str:
    """The text that is cut into chunks."""
    prompt, _ = split(text, doc, task, **given)
    return TOKENIZER.decode([token for chunk in prompt.chunks for token in chunk])


def said(text: str, found: Context | None) -> str | None:
    return None if found is None else text[found.start : found.end]


# The rule


def test_the_longest_field_with_text_after_it_is_the_context() -> None:
    assert context(PROMPT, DOC).strip() == PASSAGE
    prompt, splitter = split(PROMPT, DOC)
    assert ASKED in TOKENIZER.decode(prompt.query)
    assert dict(splitter.tally().places) == {("task", "field 'article'"): 1}


def test_a_field_called_context_comes_before_longer_ones() -> None:
    doc = {"context": "A river.", "article": PASSAGE, "question": ASKED}
    assert context(f"{PASSAGE}\nA river.\n{ASKED}", doc).strip() == "A river."


def test_a_nested_field_is_found() -> None:
    doc = {"paragraph": {"title": "Köln", "text": PASSAGE}, "question": ASKED}
    prompt, splitter = split(PROMPT, doc)
    assert dict(splitter.places) == {("task", "field 'paragraph.text'"): 1}
    assert ASKED in TOKENIZER.decode(prompt.query)


@pytest.mark.parametrize("name", ["question", "problem", "goal", "choices", "prompt", "options", "Query"])
def test_a_question_is_no_context_however_long_it_is(name: str) -> None:
    doc = {name: PASSAGE, "label": 1}
    with pytest.raises(ApeError, match=rf"it has no field 'context' \(it has: {name}, label\)"):
        split(f"Q: {PASSAGE}\nA:", doc)


def test_a_field_that_nothing_follows_is_no_context() -> None:
    with pytest.raises(ApeError, match="no context to encode in parallel"):
        split(f"Continue: {PASSAGE} ", {"text": PASSAGE})


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_writes_is_no_text_after_a_field(name: str) -> None:
    template = TEMPLATES[name]
    learnt = chat_format(make_tokenizer(template), **template.arguments)
    text = learnt.text([{"role": "user", "content": f"Continue: {PASSAGE}"}], True)
    assert by_length(text, {"text": PASSAGE}) is None
    asked = learnt.text([{"role": "user", "content": PROMPT}], True)
    assert said(asked, by_length(asked, DOC)) == PASSAGE


# Named fields and lists


def test_the_first_of_several_names_that_stands_in_the_prompt_is_taken() -> None:
    assert context(PROMPT, DOC, context_field="text|article|question").strip() == PASSAGE
    assert context(PROMPT, DOC, context_field="question").strip() == ASKED


def test_names_of_which_none_is_there_are_an_error_that_lists_the_fields() -> None:
    with pytest.raises(ApeError, match=r"it has no field 'text' or 'story' \(it has: id, article, question"):
        split(PROMPT, DOC, context_field="text|story")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_field_that_is_the_whole_message_is_no_context(name: str) -> None:
    template = TEMPLATES[name]
    learnt = chat_format(make_tokenizer(template), **template.arguments)
    text = learnt.text([{"role": "user", "content": PROMPT}], True)
    assert by_fields(text, {"input": PROMPT}, ["input"]) is None
    assert by_fields(text, {"input": PROMPT[:-3]}, ["input"]) is not None


def test_a_field_that_holds_the_question_too_is_an_error() -> None:
    with pytest.raises(ApeError, match="its field 'input' is the whole prompt, the question with it"):
        split(PROMPT, {"input": PROMPT}, context_field="input")


def test_a_question_that_may_be_inside_of_the_context_is_counted() -> None:
    _, splitter = split(f"Read.\n{PROMPT}", {"input": PROMPT}, context_field="input")
    assert any("no text after their context" in note for note in splitter.notes)


LIST = ["The city of Köln.", "A river.\n\nIt is long.", "A film."]


@pytest.mark.parametrize("pieces", [LIST, [{"title": "A", "text": piece} for piece in LIST]], ids=["text", "records"])
@pytest.mark.parametrize("heading", ["", "Passage {}:\n", "[{}] "])
def test_a_list_is_cut_between_its_pieces(pieces: list[Any], heading: str) -> None:
    passages = "\n\n".join(heading.format(number) + piece for number, piece in enumerate(LIST, start=1))
    doc = {"passages": pieces, "question": ASKED}
    prompt, splitter = split(f"Read:\n{passages}\n\n{ASKED}", doc, chunking="passages")
    chunks = [TOKENIZER.decode(chunk) for chunk in prompt.chunks]
    assert [piece in chunk for piece, chunk in zip(LIST, chunks, strict=True)] == [True] * 3
    assert [chunk.startswith(heading.format(number)) for number, chunk in enumerate(chunks[1:], start=2)] == [True] * 2
    assert dict(splitter.places) == {("task", "list 'passages'"): 1}


def test_a_list_out_of_order_or_in_part_is_told() -> None:
    for pieces in (LIST[::-1], [*LIST, "elsewhere"]):
        with pytest.raises(ApeError, match="its field 'context' is a list whose texts do not all stand"):
            split("\n".join(LIST) + f"\n{ASKED}", {"context": pieces})


def test_the_last_of_several_lists_is_taken() -> None:
    text = "\n".join([*LIST, "Yes.", *LIST, ASKED])
    found = by_length(text, {"passages": LIST, "question": ASKED})
    assert found is not None
    assert (found.start, text[found.end :]) == (text.rindex(LIST[0]), f"\n{ASKED}")


# Patterns


def test_a_pattern_finds_what_no_field_holds() -> None:
    doc = {"input": PROMPT}
    pattern = r"(?s)Answer\.\n(?P<context>.+?)\n\nQuestion:"
    assert context(PROMPT, doc, context_pattern=pattern).strip() == PASSAGE
    with pytest.raises(ApeError, match="context_pattern matches no text of it"):
        split("Go: A film. Who?", doc, context_pattern=pattern)


def test_a_pattern_sees_the_last_message_of_a_user_alone() -> None:
    tokenizer = make_tokenizer(TEMPLATES["llama3"])
    history = [
        {"role": "user", "content": "Text: one. Who?"},
        {"role": "assistant", "content": "Text: two."},
        {"role": "user", "content": "Text: three. Text: four. Who?"},
    ]
    text = chat_format(tokenizer).text(history, True)
    splitter = Splitter(tokenise, resolve({"context_pattern": r"Text: (?P<context>\w+)\."}), 4096)
    splitter.split(text, Source("task", 0, {}), 8)
    assert dict(splitter.places) == {("task", "context_pattern"): 1}
    assert any("more than once" in note for note in splitter.notes)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(?P<context>", "context_pattern must be a regular expression, but got '.*': missing"),
        ("(?P<text>.+)", "context_pattern must have a group named context"),
        (7, "context_pattern must be a regular expression, but got 7"),
    ],
)
def test_a_pattern_that_finds_nothing_ever_is_refused(pattern: Any, sentence: str) -> None:
    with pytest.raises(ApeError, match=sentence):
        resolve({"context_pattern": pattern})


def test_a_pattern_beside_a_field_is_refused() -> None:
    with pytest.raises(ApeError, match="context_pattern and context_field=article both say where"):
        resolve({"context_pattern": "(?P<context>.+)", "context_field": "article"})


# Tables


def table(folder: Path, content: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(content)
    return str(path)


def test_a_table_says_where_tasks_have_their_contexts(tmp_path: Path) -> None:
    content = """
- tasks: [mine_one, "mine_b*"]
  field: story|question
  source: my tasks
- tasks: "mine_*"
  pattern: '(?s)Answer\\.\\n(?P<context>.+?)\\n\\nQuestion:'
"""
    given = {"context_table": table(tmp_path, content)}
    assert context(PROMPT, DOC, "mine_one", **given).strip() == ASKED
    assert context(PROMPT, DOC, "mine_b2", **given).strip() == ASKED
    assert context(PROMPT, {"input": PROMPT}, "mine_other", **given).strip() == PASSAGE
    _, splitter = split(PROMPT, {"input": PROMPT}, "mine_other", **given)
    assert dict(splitter.places) == {("mine_other", "pattern (mine.yaml)"): 1}
    # What no entry finds, the rule may.
    assert context(PROMPT, DOC, "another", **given).strip() == PASSAGE


def test_another_table_under_the_same_name_is_another_setting(tmp_path: Path) -> None:
    records = []
    for field in ("article", "question"):
        path = table(tmp_path, f"- tasks: [a]\n  field: {field}\n")
        records.append(resolve({"context_table": path}).record)
    assert records[0]["context_table"] == records[1]["context_table"]
    assert records[0]["context_table_sha256"] != records[1]["context_table_sha256"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "must be a list of entries, but got None"),
        ("a: 1", "must be a list of entries"),
        ("- 7", "Entry 1 of .* must have names and values, but got 7"),
        ("- tasks: [a]", "Entry 1 of .* must have a field or a pattern, and not both"),
        ("- tasks: [a]\n  field: b\n  pattern: c", "must have a field or a pattern, and not both"),
        ("- tasks: [a]\n  filed: b", r"has no part 'filed'\. Did you mean 'field'\?"),
        ("- field: b", "must name its tasks, but got None"),
        ("- tasks: [7]\n  field: b", r"must name its tasks, but got \[7\]"),
        ("- tasks: [a]\n  field: [b]", r"field must name a field of the document, but got \['b'\]"),
        ("- tasks: [a]\n  pattern: '('", "Entry 1 of .*: pattern must be a regular expression"),
        ("- tasks: [a]\n  field: &x b\n- tasks: [b]\n  field: *x", "cannot be read: it has the alias"),
    ],
)
def test_a_malformed_table_is_told_before_anything_is_loaded(content: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ApeError, match=sentence):
        resolve({"context_table": table(tmp_path, content)})


def test_a_missing_table_is_told() -> None:
    with pytest.raises(ApeError, match=r"The table of contexts /no/such\.yaml cannot be read: No such file"):
        resolve({"context_table": "/no/such.yaml"})
