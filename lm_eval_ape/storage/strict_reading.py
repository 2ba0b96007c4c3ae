"""JSON and YAML that others wrote, read as data alone and strictly: a file says one thing plainly, or is refused.

Python's readers take the last of two equal names, NaN, numbers that become infinite, aliases that unfold without end
and text that cannot be written down again. Here each of these is an error that says what it is; who calls says where.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

# Lists and objects inside one another. What we and the harness write has less than ten.
DEEPEST = 64
# An integer of more digits cannot become a float.
_MOST_DIGITS = 300
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_MAGIC = {
    b"\x1f\x8b": "it is compressed with gzip: unpack it first",
    b"PK\x03\x04": "it is a zip archive: unpack it first",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
    b"\x80\x02": "it is a pickle, which could run code and is never loaded",
    b"\x80\x04": "it is a pickle, which could run code and is never loaded",
}


def text_of(data: bytes) -> str:
    """Bytes as text; a byte order mark at their beginning is passed over.

    Raises:
        ValueError: They are no text in UTF-8; says what they are.
    """
    for magic, reason in _MAGIC.items():
        if data.startswith(magic):
            raise ValueError(reason)
    if b"\0" in data:
        raise ValueError(f"it holds NUL bytes (the first at byte {data.index(0) + 1}), so it is no text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8: byte {error.start + 1} is 0x{data[error.start]:02x}") from error


def from_json(content: bytes | str, *, finite: bool = True) -> Any:
    """What JSON holds.

    Args:
        content: The JSON; bytes must be UTF-8.
        finite: Whether NaN and the infinities, which are no JSON but which the harness writes, and whole numbers of
            more than 64 bits are refused.

    Raises:
        ValueError: It is no JSON, or does not say one thing plainly; says why.
    """
    text = text_of(content) if isinstance(content, bytes) else content.removeprefix("\ufeff")
    if not text.strip():
        raise ValueError("it is empty")
    try:
        found = json.loads(
            text,
            parse_constant=_no_constant if finite else None,
            parse_float=_float,
            parse_int=_int if finite else _long,
            object_pairs_hook=_object,
        )
        _check_depth(found)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    if _ESCAPED_SURROGATE.search(text):
        _check_characters(found)
    return found


def from_yaml(content: bytes) -> Any:
    """What YAML holds: plain values, with numbers as YAML 1.2 writes them (`010` is 10, `1:30` is text).

    Raises:
        ValueError: It is no YAML, has tags, aliases or a name twice; says why and where.
    """
    text = text_of(content)
    try:
        found = yaml.load(text, _Loader)
        _check_depth(found)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    except yaml.MarkedYAMLError as error:
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(f"{error.problem or error.context}{place}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    _check_characters(found)
    return found


def writable(text: str) -> bool:
    """Whether text can be written to a file and name one: no NUL, no half of a surrogate pair."""
    return "\0" not in text and not _SURROGATE.search(text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {digits:.40}, which is too large")
    return number


def _int(digits: str) -> int:
    number = _long(digits)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"it holds the whole number {digits:.40}, which is more than 64 bits")
    return number


def _long(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits, which is too large")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r:.60} stands twice in one object")
    return found


def _check_depth(content: Any) -> None:
    level, depth = [content], 0
    while level := [
        inner
        for outer in level
        if isinstance(outer, (dict, list))
        for inner in (outer.values() if isinstance(outer, dict) else outer)
        if isinstance(inner, (dict, list))
    ]:
        depth += 1
        if depth >= DEEPEST:
            raise ValueError(_too_deep())


def _check_characters(content: Any) -> None:
    if _SURROGATE.search(json.dumps(content, ensure_ascii=False, default=str)):
        raise ValueError("it holds half of a surrogate pair (\\ud800 to \\udfff), which is no character")


def _too_deep() -> str:
    return f"lists and objects lie in one another more than {DEEPEST} deep"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without tags, aliases, names that stand twice, octal and sexagesimal numbers, and dates."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node that is no alias, a few of which unfold to more than any memory holds, and has no tag."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            wrong = f"it has the alias *{event.anchor}: write the value out in its place"
        elif tag := getattr(event, "tag", None):
            wrong = f"it has the tag {tag.removeprefix('tag:yaml.org,2002:')!r:.60}: write a plain value without it"
        else:
            wrong = ""
        if wrong:
            raise yaml.composer.ComposerError(None, None, wrong, event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping whose names are different."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key, _ in node.value if names.count(key.value) > 1), None):
            raise yaml.constructor.ConstructorError(
                None, None, f"the name {twice.value!r:.60} stands twice in one mapping", twice.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return _int(str(loader.construct_scalar(node)))


def _yaml_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return _float(str(loader.construct_scalar(node)))


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _yaml_float)
