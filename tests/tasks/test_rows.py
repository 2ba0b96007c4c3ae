"""Rows are read with their place, and every mistake in a file is told with it."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.rows import Row, check_unique, read_jsonl, read_jsonl_file


def rows_of(text: str) -> list[Row]:
    return read_jsonl(io.BytesIO(text.encode()), "a.jsonl")


def test_rows_keep_their_line_numbers_past_empty_lines() -> None:
    assert [(row.line, row.fields) for row in rows_of('{"a": 1}\n\n{"a": 2}\n')] == [
        (1, {"a": 1}),
        (3, {"a": 2}),
    ]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert rows_of('\ufeff{"a": 1}\n')[0].fields == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": ', r"a\.jsonl, line 2: not valid JSON"),
        ('{"a": 1}\n[1]\n', r"a\.jsonl, line 2: got \[1\], expected one JSON object"),
        ("\n\n", r"a\.jsonl has no rows"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ApeError, match=message):
        rows_of(text)


def test_bytes_that_are_not_utf8_are_an_error_that_names_the_line() -> None:
    with pytest.raises(ApeError, match=r"a\.jsonl, line 1: not valid JSON in UTF-8"):
        read_jsonl(io.BytesIO(b'{"a": "\xff"}\n'), "a.jsonl")


def test_fields_are_read_with_their_types() -> None:
    (row,) = rows_of('{"s": "x", "n": 3, "l": ["x", "y"], "empty": ""}')
    assert (row.text("s"), row.number("n"), row.texts("l")) == ("x", 3, ["x", "y"])
    assert row.text("missing", "s") == "x"
    assert row.text("empty") == ""


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda row: row.text("q", "r"), "the field `q` or `r` is missing; the row has `s`, `n`"),
        (lambda row: row.text("n"), "`n` is 3. Expected a string"),
        (lambda row: row.text("empty", empty=False), "`empty` is ''. Expected a string that is"),
        (lambda row: row.number("s"), "`s` is 'x'. Expected a whole number"),
        (lambda row: row.number("flag"), "`flag` is True. Expected a whole number"),
        (lambda row: row.texts("q"), "`q` is missing"),
        (lambda row: row.texts("none"), r"`none` is \[\]. Expected a list of strings that is not"),
        (lambda row: row.texts("mixed"), r"`mixed` is \[1\]. Expected a list of strings"),
    ],
)
def test_an_unexpected_field_is_an_error_that_says_what_was_got(read: Callable[[Row], object], message: str) -> None:
    text = '{"s": "x", "n": 3, "empty": "", "flag": true, "none": [], "mixed": [1]}'
    (row,) = rows_of(text)
    with pytest.raises(ApeError, match=rf"a\.jsonl, line 1: .*{message}"):
        read(row)


def test_duplicated_values_are_an_error_that_names_both_lines() -> None:
    rows = rows_of('{"_id": "x"}\n{"other": 1}\n{"_id": "x"}\n')
    with pytest.raises(ApeError, match=r"a\.jsonl, line 3: the `_id` 'x' stands on line 1 too"):
        check_unique(rows, "_id")


def test_a_missing_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ApeError, match=r"data folder .*nowhere does not exist"):
        read_jsonl_file(tmp_path / "nowhere" / "a.jsonl")
    with pytest.raises(ApeError, match=r"has no file a\.jsonl; it has no \.jsonl file"):
        read_jsonl_file(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").touch()
    with pytest.raises(ApeError, match=r"has no file a\.jsonl; it has b\.jsonl"):
        read_jsonl_file(tmp_path / "a.jsonl")
