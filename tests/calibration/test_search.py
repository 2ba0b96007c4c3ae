"""A search over encodings: what it tries, what it chooses, and that its choice is taken up everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.calibration import Calibration as Content
from lm_eval_ape.calibration import figures, tables
from lm_eval_ape.calibration.document import model_args_line
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import Calibration, calibrate
from lm_eval_ape.calibration.search.encodings import space
from lm_eval_ape.cli import main
from lm_eval_ape.engine.operations import ModelShape, PromptOperations
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.harness.samples import Gathered, Sample, gather
from lm_eval_ape.harness.specs import read_specs
from lm_eval_ape.settings.option_values import arguments
from lm_eval_ape.settings.strategy import SETTINGS, Settings, resolve

MakeOptions = Callable[..., dict[str, Any]]
SEARCH = {"candidates": "parallel,sink", "search": ["positions=shared,serial", "recompute=0,0.5"]}
# Four encodings: serial ones with and without recomputed tokens, two of them in two sizes.
SMALL = {"candidates": "sink,recompute[recompute=0.5]", "search": ["chunks=2,3"], "limit": 10}


def names(given: Mapping[str, Any], **more: Any) -> list[str]:
    options = Options.read({**given, **more})
    return [one.name for one in space(options.model_args, options.candidates, options.search).encodings]


def searched(
    make: MakeOptions, folder: Path | None = None, model: Mapping[str, Any] | None = None, **given: Any
) -> Content:
    chosen = {**SMALL, "temperatures": None, "scales": None, **given}
    read = make({"chunk_tokens": None, **(model or {})}, output_path=folder and str(folder), **chosen)
    read["model_args"] = {name: value for name, value in read["model_args"].items() if value is not None}
    return calibrate(Options.read({name: value for name, value in read.items() if value is not None}))


def without_seconds(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    text = re.sub(r'"(sequential_)?seconds": (\{[^}]*\}|[-+.e\d]+)', '"seconds"', text)
    return re.sub(r'"created": "[^"]*"', '"created"', text)


# What is tried


def test_candidates_and_values_are_combined_and_doubles_and_contradictions_are_listed() -> None:
    found = space(
        {"pretrained": "x"}, ("parallel", "sink", "ape"), {"positions": ("shared", "serial"), "recompute": (0, 0.5)}
    )
    assert [one.name for one in found.encodings] == [
        f"{name}[positions={positions},recompute={share}]"
        for name in ("parallel", "sink")
        for positions, share in (("shared", 0), ("serial", 0), ("serial", 0.5))
    ]
    reasons = {one.name: one.reason for one in found.left_out}
    assert len(reasons) == 6
    assert "does not go with positions=shared" in reasons["sink[positions=shared,recompute=0.5]"]
    assert "is the same as sink[positions=serial,recompute=0]" in reasons["ape[positions=serial,recompute=0]"]


@pytest.mark.parametrize("shared", [{}, {"chunking": "passages", "strategy": "sink"}, {"chunk_tokens": 300}], ids=str)
def test_the_arguments_of_an_encoding_make_its_settings_again(shared: dict[str, Any]) -> None:
    given = {"pretrained": "x", **shared}
    candidates = ("parallel", "sink[scale_mode=value]", "selective", "recompute", "cacheblend", "epic", "infoflow")
    search = {"positions": ("shared", "serial"), "max_chunks": (4, None), "separator": ("\n", "\n\n")}
    found = space(given, candidates, search).encodings
    assert len(found) > 20
    for encoding in found:
        line = ",".join(f"{name}={value}" for name, value in encoding.arguments.items()).replace("\n", "\\n")
        settings, _ = split_arguments({**given, **arguments("model_args", line)})
        same = {name: getattr(settings, name) for name in SETTINGS if name not in ("attn_temperature", "attn_scale")}
        assert same == {name: getattr(encoding.settings, name) for name in same}


def test_settings_without_effect_do_not_make_another_encoding() -> None:
    found = space(
        {"pretrained": "x"}, ("sink",), {"recompute_by": ("query", "first", "random"), "positions": ("serial",)}
    )
    assert len(found.encodings) == 1
    assert len(found.left_out) == 2


@pytest.mark.parametrize(
    ("candidates", "search", "said"),
    [
        ((), {"attn_scale": (0.9,)}, "search has attn_scale, which is found for every encoding; .*--scales"),
        ((), {"strategy": ("sink",)}, "search has strategy, .*--candidates"),
        ((), {"retriever": ("bm25",)}, "search has retriever, which says which text is read"),
        ((), {"recompte": (0.5,)}, "search has 'recompte', which is no setting. Did you mean 'recompute'"),
        ((), {"positions": ("seriel",)}, "nothing can be tried:\n  positions=seriel: .*positions must be one of"),
        (("sequential",), {}, "nothing can be tried:\n  sequential: The sequential model is the teacher"),
        (("value_only",), {}, "nothing can be tried:\n  value_only: keys_from=sequential makes an oracle"),
        (("snik",), {}, "nothing can be tried:\n  snik: There is no strategy 'snik'. Did you mean 'sink'"),
        (("sink[attn_scale=0.5]",), {}, "attn_scale has no place in a candidate"),
        (("sink[chunks=2]",), {"chunks": (3,)}, "search and the candidate both say what chunks is"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_is_loaded(
    candidates: tuple[str, ...], search: dict[str, tuple[Any, ...]], said: str
) -> None:
    with pytest.raises(ApeError, match=said):
        space({"pretrained": "nowhere"}, candidates, search)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"accept": 0.1}, "accept is only read in a search"),
        ({"race": False}, "race is only read in a search"),
        ({"search": ["positions"]}, "search must be SETTING=VALUE,VALUE,.*, but got 'positions'"),
        ({"search": ["chunks=2", "chunks=3"]}, "search has chunks twice"),
        ({"search": 3}, "search must give settings values to try"),
        ({"candidates": "sink", "accept": 0.1, "budget": 0.5}, "accept and budget are two rules"),
        ({"candidates": "sink", "accept": -1}, "accept must be a positive number"),
        ({"candidates": "sink", "choose_by": "entropy"}, "choose_by=entropy chooses among points of one encoding"),
        ({"positions": "query", "num_tokens": 4}, "--positions query compares after none"),
        ({"choose_by": "entropy", "average": "median"}, "average=median is not read"),
        ({"choose_by": "kll"}, "choose_by must be one of kl, reverse_kl.*Did you mean 'kl'"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ApeError, match=said):
        Options.read({"model_args": {"pretrained": "x"}, "tasks": ["t"], **given})


def test_values_to_search_are_the_same_from_flags_a_file_and_python() -> None:
    base = {"model_args": {"pretrained": "x"}, "tasks": ["t"]}
    flags = Options.read({**base, "search": ["recompute=0,0.5,16", "positions=serial", "max_chunks=None"]})
    text = "search: {recompute: [0, 0.5, 16], positions: serial, max_chunks: [null]}"
    file = Options.read({**base, **yaml.safe_load(text)})
    assert flags.search == file.search
    assert flags.search == {"recompute": (0, 0.5, 16), "positions": ("serial",), "max_chunks": (None,)}


# What is chosen


def test_a_search_ends_with_a_line_that_reads_as_its_choice_was_measured(
    options: MakeOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = searched(options, tmp_path, race=False)
    frontier = content.frontier
    assert frontier
    assert len(frontier.candidates) == 4
    # The choice is the least mean KL of the chosen encoding, which the grid has too.
    best = frontier.choice.best
    assert best
    assert (best.point, best.value) == (content.choice.point, content.choice.mean_kl)
    line = arguments("model_args", model_args_line(content, "nowhere"))
    given = options({"chunk_tokens": None})["model_args"]
    given = {name: value for name, value in {**given, **line}.items() if value is not None}
    settings, _ = split_arguments(given)
    assert {name: getattr(settings, name) for name in content.settings} == content.settings
    # Measured once more, with these arguments alone, it has the same KL.
    (value,) = (line.pop(name) for name in ("attn_temperature",))
    scale = line.pop("attn_scale")
    again = options({**line, "chunk_tokens": None}, limit=10, temperatures=str(value), scales=str(scale))
    again["model_args"] = {name: one for name, one in again["model_args"].items() if one is not None}
    assert calibrate(Options.read(again)).choice.mean_kl == pytest.approx(best.value, abs=1e-12)
    tables.show(content)
    assert frontier.chosen.split("[")[0] in capfd.readouterr().err
    assert "frontier" in figures.all_figures(content)
    assert (tmp_path / "frontier.svg").exists()


def test_a_files_choice_is_taken_up_by_calibration_and_by_ape_at(options: MakeOptions, tmp_path: Path) -> None:
    content = searched(options, tmp_path)
    model = {"pretrained": content.model.pretrained, "dtype": "float64"}
    expected = {**content.settings, "attn_temperature": content.choice.attn_temperature}
    by_argument, _ = split_arguments({**model, "calibration": str(tmp_path)})
    (spec,) = read_specs([f"ape@{tmp_path}"], model)
    config = yaml.safe_load((tmp_path / "run_config.yaml").read_text(encoding="utf-8"))
    by_config, _ = split_arguments(config["model_args"])
    for settings in (by_argument, spec.settings, by_config):
        assert {name: getattr(settings, name) for name in expected} == expected
    other = "shared" if content.settings["positions"] == "serial" else "serial"
    with pytest.raises(ApeError, match=r"was made for something else \(positions=|does not go with positions=shared"):
        split_arguments({**model, "calibration": str(tmp_path), "positions": other})


def test_report_and_card_show_the_search(
    options: MakeOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frontier = searched(options, tmp_path, limit=3, candidates="sink,recompute[recompute=1]").frontier
    assert frontier
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(one.name in page for one in frontier.candidates)
    assert (tmp_path / "figures" / "frontier_1.svg").exists()
    capsys.readouterr()
    assert main(["card", str(tmp_path)]) == 0
    card = capsys.readouterr().out
    assert f"Chosen: {frontier.chosen}" in card.replace("\\", "")
    # Each argument once, or lm_eval would refuse it.
    (line,) = re.findall(r"--model_args (\S+)", card)
    names = [pair.partition("=")[0] for pair in line.split(",")]
    assert len(names) == len(set(names))


def test_each_candidates_cost_is_what_its_prompts_count(options: MakeOptions, checkpoint: str) -> None:
    content = searched(options, race=False)
    assert content.frontier
    lm = ApeHFLM(checkpoint, dtype="float64", device="cpu")
    shape = ModelShape.of(lm.model)
    for one in content.frontier.candidates:
        settings: Settings = resolve(one.arguments)
        # A query that is as long as a chunk may cost more twice than the whole prompt once.
        assert 0 < one.share < 2
        if one.name == content.frontier.chosen:
            lengths = [sample.tokens for sample in content.samples]
            whole = np.mean([PromptOperations(shape, 0, [count - 1], 1).sequential for count in lengths])
            assert one.operations / one.share == pytest.approx(whole, rel=1e-9)
            assert settings.positions == content.settings["positions"]


def test_an_encoding_whose_chunks_were_kept_has_no_time(options: MakeOptions) -> None:
    given = {"candidates": "parallel,sink,sink[positions=serial]", "search": ["chunks=3"], "race": False}
    for kept, timed in (("0", [True, True, True]), ("64MiB", [True, True, False])):
        frontier = searched(options, model={"kv_cache_bytes": kept}, **given).frontier
        assert frontier
        assert [one.seconds is not None for one in frontier.candidates] == timed


def test_everything_recomputed_is_at_no_distance_and_costs_more_than_the_sequential_model(
    options: MakeOptions,
) -> None:
    given = {"candidates": "sink,recompute[recompute=1]", "search": ["chunks=3"], "race": False}
    frontier = searched(options, **given).frontier
    assert frontier
    sink, again = frontier.candidates
    assert sink.share < 1 < again.share
    assert again.best
    assert again.best.value == pytest.approx(0, abs=1e-12)
    assert frontier.chosen == sink.name
    assert searched(options, **given, budget=1.0).frontier.chosen == sink.name  # type: ignore[union-attr]
    with pytest.raises(ApeError, match="No encoding stays within 1e-06 nats: the nearest is recompute"):
        searched(options, **given, accept=1e-6)


def test_where_nothing_is_close_enough_it_says_so_and_keeps_what_was_measured(
    options: MakeOptions, tmp_path: Path
) -> None:
    with pytest.raises(ApeError, match=r"No encoding stays within 1e-09 nats: the nearest is .* with \d"):
        searched(options, tmp_path, candidates="sink", accept=1e-9)
    assert not (tmp_path / "calibration.json").exists()
    kept = (tmp_path / "cache" / "signals.0.jsonl").read_bytes()
    searched(options, tmp_path, candidates="sink")
    assert (tmp_path / "cache" / "signals.0.jsonl").read_bytes() == kept


def test_a_budget_that_nothing_fits_into_is_refused_before_anything_is_measured(
    options: MakeOptions, tmp_path: Path
) -> None:
    with pytest.raises(ApeError, match=r"No encoding costs at most 0.001 .* the cheapest is sink\[chunks=\d\]"):
        searched(options, tmp_path, candidates="sink", budget=0.001)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_what_has_no_gradient_is_left_out_where_one_is_descended() -> None:
    found = space({"pretrained": "x"}, ("sink", "selective"), {}, by_gradient=True)
    assert [one.name for one in found.encodings] == ["sink"]
    assert "a choice has no gradient" in found.left_out[0].reason


def test_encodings_that_the_model_cannot_do_are_listed(options: MakeOptions) -> None:
    content = searched(options, candidates="sink,infoflow[recompute_layers=last:99]")
    assert content.frontier
    assert all(one.name.startswith("sink") for one in content.frontier.candidates)
    reasons = [one.reason for one in content.frontier.left_out]
    assert len(reasons) == 2
    assert all("last:99, but the model has" in reason for reason in reasons)


@pytest.mark.parametrize(("lost", "candidates", "samples"), [(1, 2, 5), (4, 1, 6)])
def test_only_prompts_that_all_encodings_read_are_measured(
    options: MakeOptions, monkeypatch: pytest.MonkeyPatch, lost: int, candidates: int, samples: int
) -> None:
    """An encoding that shares few prompts with the first one is left out instead."""

    def lose(lm: Any, *given: Any, **named: Any) -> Gathered:
        found = gather(lm, *given, **named)
        return found._replace(samples=found.samples[lost:]) if lm.settings.positions == "serial" else found

    monkeypatch.setattr("lm_eval_ape.calibration.search.cut.gather", lose)
    content = searched(options, candidates="sink", search=["positions=shared,serial"], limit=6)
    assert content.frontier
    assert len(content.frontier.candidates) == candidates
    assert {one.samples for one in content.frontier.candidates} == {samples} == {len(content.samples)}
    assert content.frontier.prompts_left_out == (lost if candidates == 2 else 0)


def test_labels_score_the_candidates_and_rank_the_signals(options: MakeOptions, toy_tasks: str) -> None:
    content = searched(
        options, tasks=["toy_calibration"], include_path=[toy_tasks], metadata={}, with_labels=True, limit=6, race=False
    )
    assert content.frontier
    assert content.labels
    scores = [one.score for one in content.frontier.candidates]
    assert all(score is not None for score in scores)
    ranked = {(one.signal, one.average) for one in content.frontier.signals}
    assert len(ranked) == 18
    assert all(one.points == 4 for one in content.frontier.signals)


# However it is run


def test_a_search_that_was_stopped_ends_with_the_same_bytes(
    options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"candidates": "sink,recompute[recompute=0.3]", "search": ["chunks=3", "recompute_by=query,first"]}
    whole = searched(options, tmp_path / "whole", **given, limit=20)
    assert whole.frontier
    read, measured = Meter.sample, []

    def stop(meter: Meter, sample: Sample, *points: Any) -> Any:
        # In the middle of a prompt's encodings, after the first look.
        if len(measured) == 29:
            raise KeyboardInterrupt
        measured.append(sample)
        return read(meter, sample, *points)

    monkeypatch.setattr(Meter, "sample", stop)
    with pytest.raises(KeyboardInterrupt):
        searched(options, tmp_path / "stopped", **given, limit=20)
    monkeypatch.undo()
    assert not (tmp_path / "stopped" / "calibration.json").exists()
    journal = tmp_path / "stopped" / "cache" / "signals.0.jsonl"
    before = journal.read_bytes()
    searched(options, tmp_path / "stopped", **given, limit=20)
    assert journal.read_bytes().startswith(before)
    assert len(journal.read_bytes().splitlines()) == whole.frontier.measurements
    stopped, uninterrupted = (without_seconds(tmp_path / name / "calibration.json") for name in ("stopped", "whole"))
    assert stopped == uninterrupted


def test_a_search_is_checked_before_the_model_is_loaded(options: MakeOptions) -> None:
    given = options({"pretrained": "nowhere"}, search={"positions": ["seriel"]})
    with pytest.raises(ApeError, match="nothing can be tried"):
        Calibration(Options.read(given))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda part: part.update(chosen="other"), "frontier.chosen is 'other', which is no candidate"),
        (lambda part: part["candidates"].clear(), "frontier.candidates has 0 items"),
        (lambda part: part["rule"].update(name="best"), "frontier.rule.name must be"),
        (lambda part: part["candidates"][0].update(share=-1.0), r"frontier.candidates\[0\].share must be at least 0"),
    ],
)
def test_a_frontier_that_contradicts_itself_is_refused(
    options: MakeOptions, tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    searched(options, tmp_path, limit=2, candidates="sink")
    file = tmp_path / "calibration.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content["frontier"])
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ApeError, match=said):
        calibration_file.read(tmp_path)
