"""What a chat template writes and what the messages say: rules about a prompt's text are about the messages alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

History = list[dict[str, str]]
"""Messages with `role` and `content`."""

_MARK = "message⟨{}⟩"
_STRIPS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)


class Message(NamedTuple):
    """One message in a prompt, in characters of the prompt's text.

    Attributes:
        role: `system`, `user` or `assistant`.
        start: Where its content begins.
        end: Where its content ends.
        opens: Where the template begins to write its header; `start` where that is not known.
    """

    role: str
    start: int
    end: int
    opens: int


class ChatText(str):
    """A prompt out of a chat template, which knows where its messages stand.

    It is the text in every other respect, so it goes through the harness as any prompt does.

    Attributes:
        messages: In the order of the text; none where the template changed what they say.
    """

    messages: tuple[Message, ...]

    def __new__(cls, text: str, messages: Sequence[Message] = ()) -> ChatText:
        """Make the text; `messages` are those that stand in it."""
        made = super().__new__(cls, text)
        made.messages = tuple(messages)
        return made

    def rstrip(self, chars: str | None = None, /) -> ChatText:
        """The text without white space at its end; its messages end there at the latest."""
        text = super().rstrip(chars)
        return ChatText(text, [one._replace(end=min(one.end, len(text))) for one in self.messages])


def messages_of(text: str) -> tuple[Message, ...]:
    """The messages of a prompt; none of a plain one."""
    return text.messages if isinstance(text, ChatText) else ()


class ChatFormat:
    """A model's chat template, learnt by rendering messages whose places are known.

    Args:
        render: Puts messages into the template; the switch asks for the header of the answer to come, and the last
            message is continued without it.
        close: Puts messages into the template, each with its end, and nothing after them.
    """

    def __init__(self, render: Callable[[History, bool], str], close: Callable[[History], str]) -> None:
        self._render = render
        self._close = close
        self._gaps: dict[tuple[tuple[str, ...], bool], tuple[list[int], list[str]]] = {}
        self._header: str | None = None

    def text(self, history: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> ChatText:
        """Put messages into the template, and note where each stands.

        The places follow from the same messages with marks for contents, which show what the template writes between
        them: a message that quotes the template, or an earlier message, moves nothing.

        Args:
            history: The messages, each with `role` and `content`.
            add_generation_prompt: Whether the header of the answer follows; otherwise the last message is continued.
        """
        text = self._render([dict(message) for message in history], add_generation_prompt)
        order, gaps = self._learn(tuple(message["role"] for message in history), add_generation_prompt)
        found: list[Message] = []
        place = 0
        for number, gap in zip(order, gaps, strict=False):
            content = history[number]["content"]
            start = place + len(gap)
            said = next((cut(content) for cut in _STRIPS if text.startswith(gap + cut(content), place)), None)
            if said is None:
                return ChatText(text)
            found.append(Message(history[number]["role"], start, start + len(said), start))
            place = start + len(said)
        return ChatText(text, self._opened(text, found) if text[place:] == gaps[-1] else ())

    def wrote(self, text: str) -> bool:
        """Whether a plain text begins as this template begins, so that somebody has put it into the template before."""
        _, gaps = self._learn(("user",), True)
        return len(gaps) > 1 and bool(gaps[0].strip()) and text.startswith(gaps[0])

    def _learn(self, roles: tuple[str, ...], add_generation_prompt: bool) -> tuple[list[int], list[str]]:
        """Numbers of the messages in the order in which the template writes them, and what it writes around them."""
        key = roles, add_generation_prompt
        if key not in self._gaps:
            self._gaps[key] = _gaps(len(roles), self._render(_marked(roles), add_generation_prompt))
        return self._gaps[key]

    def _opened(self, text: str, messages: Sequence[Message]) -> list[Message]:
        """The messages with the places where a user's headers begin, as far as the text before them shows one."""
        header = self._user_header() if len(messages) > 1 else ""
        found = []
        for message in messages:
            headed = message.role == "user" and text.endswith(header, 0, message.start)
            found.append(message._replace(opens=message.start - len(header)) if headed else message)
        return found

    def _user_header(self) -> str:
        """What the template writes between the end of an answer and the message of a user that follows it."""
        if self._header is None:
            _, gaps = self._learn(("user", "assistant", "user"), True)
            _, closed = _gaps(2, self._close(_marked(("user", "assistant"))))
            between = gaps[2] if len(gaps) == 4 else ""
            self._header = between[len(_footer(between, closed[-1])) :]
        return self._header


def _marked(roles: Sequence[str]) -> History:
    """Messages whose contents are marks."""
    return [{"role": role, "content": _MARK.format(number)} for number, role in enumerate(roles)]


def _gaps(messages: int, text: str) -> tuple[list[int], list[str]]:
    """The order of marked messages in a text, and the text before, between and after them."""
    marks = [_MARK.format(number) for number in range(messages)]
    # A template may leave a system message out, or write it into another one.
    order = sorted((number for number in range(messages) if marks[number] in text), key=lambda n: text.index(marks[n]))
    gaps = []
    for number in order:
        gap, _, text = text.partition(marks[number])
        gaps.append(gap)
    return order, [*gaps, text]


def _footer(between: str, last: str) -> str:
    """How an answer ends: what stands after it both before another message and at the end of a conversation."""
    pairs = zip(between, last, strict=False)
    shared = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if shared == last:
        return shared
    # The markers that follow may begin with the same characters.
    whole = max(shared.rfind(end) for end in (">", "]", "\n", " "))
    return shared[: whole + 1]
