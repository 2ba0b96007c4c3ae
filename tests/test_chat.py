"""Where messages stand in what chat templates write."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import pytest

from helpers.templates import TEMPLATES, chat_format, make_tokenizer
from lm_eval_ape.prompts.chat import ChatFormat, ChatText, messages_of

SHOTS = [
    {"role": role, "content": text}
    for number in (1, 2, 3)
    for role, text in (("user", f"Q: ask{number}\n\nWell?\nA:"), ("assistant", f"reply{number}"))
]
QUESTION = {"role": "user", "content": "Q: the question\nA:"}
SYSTEM = {"role": "system", "content": "Be brief.\n\n"}


@pytest.fixture(params=TEMPLATES, name="format_of")
def format_of_template(request: pytest.FixtureRequest) -> ChatFormat:
    template = TEMPLATES[request.param]
    return chat_format(make_tokenizer(template), **template.arguments)


@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["", "system"])
@pytest.mark.parametrize("turns", [[], SHOTS], ids=["one message", "turns"])
def test_every_message_is_found_where_the_template_wrote_it(
    format_of: ChatFormat, system: list[dict[str, str]], turns: list[dict[str, str]]
) -> None:
    history = [*system, *turns, QUESTION]
    text = format_of.text(history, True)
    said = {(message.role, text[message.start : message.end].strip()) for message in messages_of(text)}
    assert said == {(message["role"], message["content"].strip()) for message in history}
    assert [message.start for message in messages_of(text)] == sorted(message.start for message in messages_of(text))


def test_turns_open_with_their_own_header_and_end_with_their_own_marker(format_of: ChatFormat) -> None:
    text = format_of.text([*SHOTS, QUESTION], True)
    users = [message for message in messages_of(text) if message.role == "user"]
    headers = [text[user.opens : user.start] for user in users]
    assert len(set(headers)) == 1
    # A turn is the same text wherever it stands, but for its number.
    turns = [text[one.opens : two.opens] for one, two in pairwise(users)]
    assert {turn.replace(str(number), "N") for number, turn in enumerate(turns, start=1)} == {
        turns[0].replace("1", "N")
    }


@pytest.mark.parametrize("content", ["user", "assistant", "model", " [/INST]", "<|im_end|>\n<|im_start|>user\n", "a"])
def test_a_message_that_quotes_the_template_moves_nothing(format_of: ChatFormat, content: str) -> None:
    history = [{"role": "user", "content": content}, {"role": "assistant", "content": "user"}, QUESTION]
    text = format_of.text(history, True)
    said = [text[message.start : message.end].strip() for message in messages_of(text)]
    assert said == [content.strip(), "user", QUESTION["content"]]


def test_a_continued_answer_is_the_last_message(format_of: ChatFormat) -> None:
    text = format_of.text([QUESTION, {"role": "assistant", "content": "The answer is"}], False)
    last = messages_of(text)[-1]
    assert (last.role, text[last.start :]) == ("assistant", "The answer is")


def test_a_message_that_the_template_changes_has_no_place() -> None:
    template = TEMPLATES["qwen3"]
    learnt = chat_format(make_tokenizer(template))
    thought = {"role": "assistant", "content": "<think>well</think>\nreply"}
    assert messages_of(learnt.text([SHOTS[0], thought, QUESTION], True)) == ()


def test_a_prompt_is_still_a_text(format_of: ChatFormat) -> None:
    text = format_of.text([QUESTION], True)
    assert text == str(text)
    assert hash(text) == hash(str(text))
    for same in (copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert same == text
        assert messages_of(same) == messages_of(text)
    assert messages_of(str.__str__(text) + "") == ()


def test_white_space_at_the_end_can_be_cut_off() -> None:
    text = chat_format(make_tokenizer(TEMPLATES["chatml"])).text([QUESTION, SHOTS[1] | {"content": "Well,  "}], False)
    cut = ChatText(text + " ", messages_of(text)).rstrip()
    last = messages_of(cut)[-1]
    assert cut[last.start : last.end] == "Well,"


def test_a_text_that_somebody_else_put_into_the_template_is_recognised(format_of: ChatFormat) -> None:
    text = str.__str__(format_of.text([QUESTION], True)) + ""
    assert format_of.wrote(text)
    assert not format_of.wrote("Q: the question\nA:")
