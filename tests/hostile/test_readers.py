"""Whatever bytes a file has and whatever an option says, a reader gives plain data or its one kind of error."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ape.analysis.options import Options as AnalysisOptions
from lm_eval_ape.calibration.options import Options as CalibrationOptions
from lm_eval_ape.comparison.options import Options as ComparisonOptions
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values
from lm_eval_ape.settings.strategy import SETTINGS, resolve
from lm_eval_ape.storage.strict_reading import from_json, from_yaml
from lm_eval_ape.tasks.fewshot.data import load_fewshot
from lm_eval_ape.tasks.needle.data import load_needle
from lm_eval_ape.tasks.perplexity.data import load_perplexity
from lm_eval_ape.tasks.rows import read_jsonl

COMMANDS = (CalibrationOptions, ComparisonOptions, AnalysisOptions)
NEEDED = {"model_args": "pretrained=pocket", "tasks": "t", "output_path": "out"}
SIGNS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"',
    "'",
    "a",
    "1",
    "-",
    ".",
    "e",
    "\n",
    " ",
    "NaN",
    "null",
    "true",
    "\\u",
    "d800",
]
SIGNS += [
    "!!",
    "!",
    "&a",
    "*a",
    "<<",
    "?",
    "|",
    ">",
    "#",
    "%",
    "@",
    "`",
    "---",
    "...",
    "~",
    "0",
    "\t",
    "\r",
    "\x85",
    "é",
]
texts = st.lists(st.sampled_from(SIGNS), max_size=25).map("".join)
contents = st.one_of(
    st.binary(max_size=60), texts.map(str.encode), st.text(max_size=30).map(lambda t: t.encode("utf-8"))
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@given(content=contents)
def test_any_bytes_are_plain_data_or_a_value_error(content: bytes) -> None:
    for read in (from_json, from_yaml):
        try:
            found = read(content)
        except ValueError:
            continue
        # It can be written down again, as text in UTF-8 and without NaN.
        json.dumps(found, ensure_ascii=False, allow_nan=False, default=str).encode()


@given(content=contents)
def test_any_bytes_are_rows_or_a_sentence(content: bytes) -> None:
    with contextlib.suppress(ApeError):
        assert all(isinstance(row.fields, dict) for row in read_jsonl(io.BytesIO(content), "a.jsonl"))


@given(value=values)
def test_json_that_python_writes_is_read_as_it_was(value: object) -> None:
    text = json.dumps(value)
    try:
        found = from_json(text)
    except ValueError:
        return
    assert found == json.loads(text)


@given(value=values)
def test_any_value_of_an_option_is_brought_to_one_form_or_is_a_sentence(value: object) -> None:
    with contextlib.suppress(ApeError):
        option_values.byte_size("kv_cache_bytes", value)
    for options in COMMANDS:
        for name in options.model_fields:
            with contextlib.suppress(ApeError):
                found = getattr(options.read({**NEEDED, name: value}), name)
                if name in ("limit", "temperatures", "chunks", "bounds", "keep_gib") and found is not None:
                    assert all(math.isfinite(number) for number in (found if isinstance(found, tuple) else [found]))


@given(given=st.dictionaries(st.sampled_from(SETTINGS), values, max_size=3))
def test_any_settings_are_resolved_or_are_a_sentence(given: dict[str, object]) -> None:
    with contextlib.suppress(ApeError):
        settings = resolve(given)
        assert 0 < settings.attn_temperature < math.inf
        assert 0 < settings.attn_scale < math.inf


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8bgzip", "ä".encode("utf-16"), b"\xff", b"\0\0", b"{", b'{"text": 3}\n', b"[1]\n"]
)
def test_local_files_of_every_task_that_has_some_are_told_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trec").mkdir()
    for name in ("trec/train.jsonl", "trec/test.jsonl", "books.jsonl"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ApeError, match=r"train\.jsonl"):
        load_fewshot(fewshot_dataset="trec", fewshot_dir=str(tmp_path))
    with pytest.raises(ApeError, match=r"books\.jsonl"):
        load_perplexity(perplexity_path=str(tmp_path / "books.jsonl"), pretrained="pocket")
    if b"{" not in content and b"[" not in content:
        (tmp_path / "hay.txt").write_bytes(content)
        with pytest.raises(ApeError, match=r"hay\.txt"):
            load_needle(needle_haystack=str(tmp_path / "hay.txt"))


@pytest.mark.parametrize("name", ["text", "input", "context", "question"])
def test_a_document_that_says_the_prompts_own_fields_is_put_in_as_it_is(name: str) -> None:
    from lm_eval_ape.tasks.fewshot import data as fewshot
    from lm_eval_ape.tasks.keyvalue import data as keyvalue
    from lm_eval_ape.tasks.needle import data as needle

    said = f"a {{{name}}} {{{{{name}}}}} {{0}} %s {{key}}"
    for module in (fewshot, keyvalue, needle):
        doc = {"context": said, "input": "ASKED", "question": "ASKED", "key": "ASKED", "named": []}
        prompt = module.prompt(doc)
        assert prompt.count("ASKED") == 1
        assert said in prompt
