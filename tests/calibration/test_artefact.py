"""`calibration=`: a choice is taken up by the model it was made for, and by no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.artefacts.document import checking
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.arguments import split_arguments


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: str, checkpoint: str) -> Path:
    path = tmp_path_factory.mktemp("calibrated")
    model = {"pretrained": checkpoint, "dtype": "float64", "chunk_tokens": 40}
    given = {"model_args": model, "tasks": "ape_longbench_2wikimqa_calibration", "metadata": {"longbench_dir": rows}}
    calibrate(
        Options.read(
            {**given, "limit": 2, "num_tokens": 1, "temperatures": 0.8, "scales": 0.7, "output_path": str(path)}
        )
    )
    return path


def check(content: dict[str, Any]) -> None:
    with checking("It is wrong", "Make it again."):
        Calibration.model_validate(content)


@pytest.mark.parametrize("file", ["", "calibration.json"])
def test_the_model_takes_the_choice_up(folder: Path, checkpoint: str, file: str) -> None:
    lm = ApeHFLM(pretrained=checkpoint, dtype="float64", device="cpu", chunk_tokens=40, calibration=str(folder / file))
    assert (lm.settings.attn_temperature, lm.settings.attn_scale) == (0.8, 0.7)
    assert lm.get_model_info()["lm_eval_ape"]["attn_temperature"] == 0.8


def test_another_path_to_the_same_model_is_the_same_model(
    folder: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(checkpoint)
    monkeypatch.chdir(tmp_path)
    settings, _ = split_arguments({"pretrained": "link", "chunk_tokens": 40, "calibration": str(folder)})
    assert settings.attn_scale == 0.7


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"chunk_tokens": 41}, "chunk_tokens=40 there, 41 here"),
        ({"chunking": "passages"}, "chunking='tokens' there, 'passages' here"),
        ({"strategy": "sink"}, "strategy='ape' there, 'sink' here"),
        ({"positions": "serial"}, "positions='shared' there, 'serial' here"),
        ({"max_chunks": 3}, "max_chunks=None there, 3 here"),
        ({"chunk_tokens": None, "chunks": 4}, "chunks=None there, 4 here"),
        ({"max_chunks": 3, "retriever": "bm25"}, "retriever='none' there, 'bm25' here"),
        ({"pretrained": "org/other"}, "'org/other' here"),
        ({"revision": "v2"}, "revision='main' there, 'v2' here"),
        ({"peft": "org/adapter"}, "peft=None there, 'org/adapter' here"),
    ],
)
def test_a_choice_made_for_something_else_is_refused(
    folder: Path, checkpoint: str, changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(ApeError, match="was made for something else") as error:
        split_arguments({"pretrained": checkpoint, "chunk_tokens": 40, "calibration": str(folder), **changed})
    assert told in str(error.value)


def test_a_preset_is_the_settings_that_it_fills(folder: Path, checkpoint: str, tmp_path: Path) -> None:
    content = calibration_file.read(folder).as_json()
    content["settings"] |= {"chunk_tokens": 200, "max_chunks": 20, "retriever": "bm25"}
    calibration_file.write(tmp_path, Calibration.model_validate(content), {})
    settings, _ = split_arguments({"pretrained": checkpoint, "preset": "C200x20", "calibration": str(tmp_path)})
    assert (settings.attn_temperature, settings.chunk_tokens) == (0.8, 200)
    with pytest.raises(ApeError, match="chunk_tokens=200 there, 4000 here"):
        split_arguments({"pretrained": checkpoint, "preset": "C4000x20", "calibration": str(tmp_path)})


def test_a_choice_from_before_a_setting_existed_was_made_with_its_default(
    folder: Path, checkpoint: str, tmp_path: Path
) -> None:
    content = calibration_file.read(folder).as_json()
    for name in ("chunks", "retriever"):
        del content["settings"][name]
    calibration_file.write(tmp_path, Calibration.model_validate(content), {})
    given = {"pretrained": checkpoint, "chunk_tokens": 40, "calibration": str(tmp_path)}
    assert split_arguments(given)[0].attn_scale == 0.7
    with pytest.raises(ApeError, match="retriever='none' there, 'bm25' here"):
        split_arguments({**given, "max_chunks": 2, "retriever": "bm25"})


def test_weights_that_changed_under_the_same_name_are_refused(folder: Path, checkpoint: str, tmp_path: Path) -> None:
    content = calibration_file.read(folder).as_json()
    content["model"]["weights_sha256"] = "0" * 64
    calibration_file.write(tmp_path, Calibration.model_validate(content), {})
    given = {"pretrained": checkpoint, "device": "cpu", "chunk_tokens": 40, "calibration": str(tmp_path)}
    with pytest.raises(ApeError, match="made for other weights than"):
        ApeHFLM(**given, dtype="float64")
    # Another precision of the same checkpoint is told apart by its name only.
    assert ApeHFLM(**given, dtype="float32").settings.attn_scale == 0.7


def test_a_choice_and_a_temperature_exclude_each_other(folder: Path, checkpoint: str) -> None:
    with pytest.raises(ApeError, match=r"attn_temperature=0\.9 both say what T and S are"):
        split_arguments({"pretrained": checkpoint, "calibration": str(folder), "attn_temperature": 0.9})


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema_version": 2}'])
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "calibration.json").write_text(text, encoding="utf-8")
    with pytest.raises(ApeError, match=r"cannot be read|no calibration that this version can read"):
        calibration_file.read(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("choice", "attn_scale"), "0.9", "choice.attn_scale must be number"),
        (("schema_version",), 3, "schema_version must be at most 2"),
        (("samples",), [], "samples has 0 items"),
        (("stability", "temperature", "stable"), 1, "stability.temperature.stable must be boolean"),
        (("grid", "points", 0), [0.9], r"grid.points\[0\] must be T and S, two numbers above 0, but is \[0.9\]"),
        (("model", "weights_sha256"), None, "model.weights_sha256 must be string"),
    ],
)
def test_the_schema_tells_what_is_wrong_and_where(folder: Path, path: tuple[Any, ...], value: Any, told: str) -> None:
    content = calibration_file.read(folder).as_json()
    inner: Any = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ApeError, match=told):
        check(content)


def test_every_part_of_the_file_is_required(folder: Path) -> None:
    content = calibration_file.read(folder).as_json()
    for name in set(content) - {"gradient", "entropy", "signals", "frontier"}:
        with pytest.raises(ApeError, match=f"has no '{name}'"):
            check({key: value for key, value in content.items() if key != name})


def test_numbers_that_json_has_no_word_for_are_never_written(folder: Path, tmp_path: Path) -> None:
    content = {**calibration_file.read(folder).as_json(), "seconds": {"load": float("nan")}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        calibration_file.write(tmp_path, Calibration.model_validate(content), {})
    assert not list(tmp_path.iterdir())
    assert json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
