"""`calibrate --dry_run`: what is told is what a run then reads, and nothing is touched for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import tiny
from lm_eval_ape.calibration.dry_run import dry_run
from lm_eval_ape.calibration.objective import teacher
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import calibrate
from lm_eval_ape.cli import main
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.operations import ModelShape, PromptOperations
from lm_eval_ape.errors import ApeError
from lm_eval_ape.forecast import measuring
from lm_eval_ape.forecast.forecast import Forecast
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.catalogue import Catalogue
from lm_eval_ape.harness.samples import gather
from lm_eval_ape.prompts.prompt import Prompt

MakeOptions = Callable[..., dict[str, Any]]
Flags = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are not looked at."""
    monkeypatch.setattr(measuring, "ROUNDS", 1)


@pytest.fixture(scope="session")
def weightless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a checkpoint that has lost its weights."""
    folder = tmp_path_factory.mktemp("weightless")
    tiny.save_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    return str(folder)


def rows(forecast: Forecast) -> dict[str, Any]:
    return {row.name: row for row in forecast.rows}


def prompts_of(options: Options) -> list[Prompt]:
    """The prompts as the loaded model cuts them."""
    lm = ApeHFLM(**options.model_args, device="cpu")
    given = {"num_tokens": options.objective.num_tokens, "limit": options.limit}
    return [sample.prompt for sample in gather(lm, Catalogue(options).load(options.tasks), options, **given).samples]


def shape_of(folder: str) -> ModelShape:
    return ModelShape.of(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)))


def test_what_is_told_is_what_a_run_then_reads(
    options: MakeOptions, monkeypatch: pytest.MonkeyPatch, checkpoint: str
) -> None:
    given = Options.read(options(after_eos="continue"))
    told = dry_run(given)
    asked: list[int] = []
    ask = teacher.ask

    def spy(lm: Any, ids: tuple[int, ...], *rest: Any, **named: Any) -> Any:
        asked.append(len(ids))
        return ask(lm, ids, *rest, **named)

    monkeypatch.setattr(teacher, "ask", spy)
    found = calibrate(given)
    assert told.prompts == len(found.samples) == len(asked) == 4
    assert told.tokens == sum(asked)
    assert f"{len(found.grid.points)} points scored" in rows(told)
    assert told.seconds > 0
    assert told.peak_bytes > told.memory.peak > told.memory.weights + told.memory.kv > told.memory.kv > 0
    weights = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float64").num_parameters() * 8
    assert weights <= told.memory.weights < 1.01 * weights


def test_operations_are_those_of_the_formulas(options: MakeOptions, checkpoint: str) -> None:
    given = Options.read(options({"strategy": "recompute"}))
    told, shape = rows(dry_run(given)), shape_of(checkpoint)
    counts = [PromptOperations.of(shape, prompt) for prompt in prompts_of(given)]
    encoding = sum(count.encoding() + count.recomputation(0.05, "query") for count in counts)
    points = 9  # The grid's six, (0.9, 0.9) which it has not, T=0.8 and T=1 at S=0.9.
    assert told["teacher"].operations == pytest.approx(sum(count.teacher(3) for count in counts))
    assert told["chunks encoded"].operations == pytest.approx(encoding)
    assert told[f"{points} points scored"].operations == pytest.approx(
        sum(count.scoring(points, 3) for count in counts)
    )


def test_logits_of_the_query_are_counted_where_they_count(options: MakeOptions, checkpoint: str) -> None:
    alone = rows(dry_run(Options.read(options(positions="next", num_tokens=1))))
    query = rows(dry_run(Options.read(options(positions="query", num_tokens=None))))
    given = Options.read(options(num_tokens=1))
    positions = sum(len(prompt.query) - 1 for prompt in prompts_of(given))
    more = {name: query[name].operations - alone[name].operations for name in ("teacher", "9 points scored")}
    head = shape_of(checkpoint).head
    assert more == pytest.approx({"teacher": positions * head, "9 points scored": 9 * positions * head})


def test_every_candidate_of_a_search_has_its_parts(options: MakeOptions, checkpoint: str) -> None:
    search = {"recompute": [0, 0.2, 0.5]}
    given = Options.read(options({"positions": "serial"}, search=search, temperatures=None, scales=None))
    told = dry_run(given)
    names = [f"recompute={share}: {what}" for share in (0, 0.2, 0.5) for what in ("chunks encoded", "4 points scored")]
    assert list(rows(told)) == ["teacher", *names]
    counts = [PromptOperations.of(shape_of(checkpoint), prompt) for prompt in prompts_of(given)]
    for share in (0.2, 0.5):
        again = sum(count.recomputation(share, "query") for count in counts)
        more = rows(told)[f"recompute={share}: chunks encoded"].operations
        assert more - rows(told)["recompute=0: chunks encoded"].operations == pytest.approx(again)
    assert told.prompts == 4
    assert any("race" in one for one in told.not_counted)


def test_labels_and_test_tasks_are_counted_at_their_limits(options: MakeOptions, toy_tasks: str) -> None:
    toy = {"tasks": ["toy_calibration"], "include_path": [toy_tasks], "metadata": {}, "with_labels": True}
    told = dry_run(Options.read(options(limit=None, **toy)))
    parts = rows(told)
    assert told.prompts == 6 + 5
    assert parts["9 points scored"].prompts == 6
    assert parts["test: teacher"].prompts == 5
    # Of four choices of one context the last token alone is another's.
    assert parts["labels: answers scored"].prompts % 6 == 0
    assert parts["labels: answers scored"].prompts >= 6 * 6


@pytest.mark.parametrize(
    ("given", "word"),
    [({"method": "grid+gradient"}, "gradient"), ({"entropy": True}, "entropy")],
)
def test_what_is_not_counted_is_said(options: MakeOptions, given: dict[str, Any], word: str) -> None:
    told = dry_run(Options.read(options(output_path="not_made", **given)))
    assert any(word in one for one in told.not_counted)


def test_no_weight_is_read_and_nothing_is_written(
    flags: Flags,
    weightless: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(Path(weightless).iterdir())
    model = {"pretrained": weightless, "kv_cache_dir": "kept", "request_log": "log.jsonl"}
    arguments = flags(model, output_path="out", cache_path="cache")
    assert main(["calibrate", *arguments, "--dry_run"]) == 0
    shown = capfd.readouterr()
    told = json.loads(shown.out.splitlines()[-1])
    assert {"prompts", "tokens", "operations", "kv_bytes", "peak_bytes", "seconds"} < set(told)
    assert told["command"] == "calibrate"
    assert told["prompts"] == 4
    assert told["operations"] == sum(part["operations"] for part in told["parts"])
    assert "chunks encoded" in shown.err
    assert not list(tmp_path.iterdir())
    assert sorted(Path(weightless).iterdir()) == before
    with pytest.raises(ApeError, match="cannot be loaded"):
        calibrate(Options.read({"model_args": {"pretrained": weightless}, "tasks": ["ape_pocket_twohop_calibration"]}))


@pytest.mark.parametrize(
    ("model_args", "given"),
    [
        ({"strategy": "sequential"}, {}),
        ({"chunkng": "passages"}, {}),
        ({"pretrained": "no/such/model"}, {}),
        ({}, {"temperatures": "0"}),
        ({"max_length": 8}, {}),
        ({"max_length": 8}, {"on_too_long": "error"}),
    ],
)
def test_what_a_run_refuses_is_refused_in_the_same_words(
    flags: Flags,
    model_args: dict[str, Any],
    given: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = []
    for further in ([], ["--dry_run"]):
        assert main(["calibrate", *flags(model_args, **given), *further]) == 2
        told.append(capsys.readouterr().err.splitlines()[-1])
    assert told[0] == told[1]


def test_a_model_that_cannot_be_served_is_refused(options: MakeOptions, tmp_path: Path) -> None:
    folder = tiny.save_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "gpt2", "architectures": None}))
    with pytest.raises(ApeError, match="RoPE"):
        dry_run(Options.read(options({"pretrained": folder})))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "mixtral"])
def test_a_large_model_is_measured_in_few_layers(
    options: MakeOptions, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "WHOLE_PARAMETERS", 0)
    monkeypatch.setattr(measuring, "DEPTHS", (1, 2))
    tiny.save_checkpoint(tmp_path, family)
    attention = {"attn_implementation": "eager"} if family == "gemma2" else {}
    model = {"pretrained": str(tmp_path), "dtype": "float32", "strategy": "infoflow", **attention}
    told = dry_run(Options.read(options(model)))
    assert list(told.depths) == [1, 2]
    assert told.seconds > 0


def test_long_prompts_are_shortened_where_time_is_short(options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MEASURING_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "FIRST_TOKENS", 16)
    given = Options.read(options())
    read: list[int] = []
    encode = Engine.encode

    def spy(engine: Engine, prompt: Prompt) -> Any:
        read.append(len(prompt.ids))
        return encode(engine, prompt)

    monkeypatch.setattr(Engine, "encode", spy)
    told = dry_run(given)
    lengths = [len(prompt.ids) for prompt in prompts_of(given)]
    assert told.tokens == sum(lengths)
    assert max(read) < min(lengths)
    assert all(row.seconds >= 0 for row in told.rows)
