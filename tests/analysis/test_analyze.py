"""`lm-eval-ape analyze`: the attention that it reports, against transformers' own, and its files."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_ape.analysis.attention import OFFSETS, look
from lm_eval_ape.analysis.correlation import correlate
from lm_eval_ape.analysis.heads import heads_part
from lm_eval_ape.analysis.options import Options
from lm_eval_ape.analysis.run import analyze
from lm_eval_ape.analysis.sweep import cases
from lm_eval_ape.analysis.tables import comma_separated, markdown
from lm_eval_ape.artefacts.analysis import Analysis, ByHead, MassTables
from lm_eval_ape.artefacts.analysis_file import read
from lm_eval_ape.artefacts.gradient_fit import FactorTables
from lm_eval_ape.artefacts.points import DEFAULT
from lm_eval_ape.cli import main
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.pocket import pocket_path
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.report.page import report
from lm_eval_ape.settings.strategy import resolve

MODEL = {"pretrained": "pocket", "chunking": "passages"}


def small(folder: Path) -> Options:
    return Options.read(
        {
            "model_args": MODEL,
            "tasks": "ape_pocket_twohop_test",
            "strategies": "sequential,parallel,sink+selective",
            "chunks": "2,5",
            "limit": 6,
            "probe_limit": 4,
            "batch_size": 6,
            "output_path": str(folder),
        }
    )


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("analysis")
    content = analyze(small(folder), ["lm-eval-ape", "analyze"]).as_json()
    assert content is not None
    return content, folder


def test_a_sequential_case_has_the_entropy_of_the_stock_models_own_attention() -> None:
    lm = ApeHFLM("pocket", dtype="float64", device="cpu")
    ids = AutoTokenizer.from_pretrained(pocket_path())(" ".join(["one two three"] * 4))["input_ids"]
    prompt = Prompt(tuple(ids[:3]), (tuple(ids[3:-4]),), tuple(ids[-4:]))
    seen = look(lm, prompt, resolve({"strategy": "sink"}))
    stock = AutoModelForCausalLM.from_pretrained(pocket_path(), dtype=torch.float64, attn_implementation="eager")
    with torch.no_grad():
        output = stock(torch.tensor([ids]), output_attentions=True, use_cache=True)
    for layer, attention in enumerate(output.attentions):
        own = attention[0, :, -4:].double()
        entropy = -torch.special.xlogy(own, own).sum(-1).mean(-1)
        assert np.allclose(seen.entropy[layer], entropy, atol=1e-6)
        assert np.allclose(seen.mass["prefix"][layer], own[..., :3].sum(-1).mean(-1), atol=1e-6)
        norms = output.past_key_values.layers[layer].keys[0].norm(dim=-1).mean(0)
        assert seen.key_norms["context"][layer][0] == pytest.approx(float(norms[3]))
        assert seen.key_norms["prefix"][layer][2] == pytest.approx(float(norms[2]))
        start, end = OFFSETS[3], min(OFFSETS[4], len(ids) - 7)
        assert seen.key_norms["context"][layer][4] == pytest.approx(float(norms[3 + start : 3 + end].mean()))
        assert seen.key_norms["context"][layer][-1] is None


def test_where_recomputed_tokens_stand_is_counted_and_the_entropy_is_that_without_them() -> None:
    lm = ApeHFLM("pocket", dtype="float64", device="cpu")
    ids = iter(range(10, 400))
    prefix, *chunks, query = (tuple(islice(ids, length)) for length in (3, 6, 9, 4, 5))
    prompt = Prompt(prefix, tuple(chunks), query)
    given = {"strategy": "epic", "attn_temperature": 0.8}
    seen = look(lm, prompt, resolve({**given, "recompute": 5})).recomputed
    # The first three tokens of the second chunk, and two of the third.
    assert seen is not None
    assert seen.by_chunk == [0, 3 / 9, 2 / 4]
    assert seen.by_offset[:4] == [1, 1, 1 / 2, 0]
    assert seen.by_offset[4] == 0
    assert set(seen.by_offset[6:]) == {None}
    without = look(lm, prompt, resolve({**given, "recompute": 0}))
    assert without.recomputed is None
    assert seen.entropy_without == pytest.approx(np.mean(without.entropy))


def test_an_analysis_tells_of_recomputation_and_reads_its_journal_again(tmp_path: Path) -> None:
    options = Options.read(
        {
            "model_args": {"pretrained": "pocket", "chunking": "passages"},
            "tasks": "ape_pocket_twohop_test",
            "strategies": "sink[positions=serial],recompute",
            "chunks": "2,5",
            "probe_limit": 3,
            "scores": False,
            "output_path": str(tmp_path),
        }
    )
    first, second = analyze(options), analyze(options)
    assert first is not None
    assert second is not None
    assert first.cases == second.cases
    looks = {case.label: case.tasks["ape_pocket_twohop_test"] for case in first.cases}
    for chunks in (2, 5):
        plain, found = looks[f"sink[chunks={chunks},positions=serial]"], looks[f"recompute[chunks={chunks}]"]
        assert plain.recomputed is None
        assert found.recomputed is not None
        assert found.recomputed.entropy_without == pytest.approx(plain.entropy, abs=1e-5)
        assert found.recomputed.entropy_difference == pytest.approx(found.entropy - plain.entropy, abs=1e-5)
        assert found.recomputed.by_chunk[0] == 0
        assert len(found.recomputed.by_chunk) == chunks
    assert "Recomputed tokens" in (tmp_path / "analysis.md").read_text()


def test_cases_are_strategies_by_numbers_of_chunks_and_sequential_once(analysed: tuple[dict[str, Any], Path]) -> None:
    content, _ = analysed
    labels = [case["label"] for case in content["cases"]]
    assert labels == [
        "sequential",
        "parallel[chunks=2]",
        "parallel[chunks=5]",
        "sink+selective[chunks=2]",
        "sink+selective[chunks=5]",
    ]
    chunks = [case["tasks"]["ape_pocket_twohop_test"]["mean_chunks"] for case in content["cases"]]
    assert chunks == [1, 2, 5, 2, 5]


def test_scores_are_the_boards_and_shares_sum_to_one(analysed: tuple[dict[str, Any], Path]) -> None:
    content, folder = analysed
    board = json.loads((folder / "board" / "board.json").read_text(encoding="utf-8"))
    for case, row in zip(content["cases"], board["rows"], strict=True):
        part = case["tasks"]["ape_pocket_twohop_test"]
        assert part["score"]["score"] == row["tasks"]["ape_pocket_twohop_test"]["score"]
        assert part["documents"] == 4
        assert sum(part["mass"].values()) == pytest.approx(1.0, abs=1e-5)
        assert part["entropy"] == pytest.approx(np.mean(part["by_head"]["entropy"]))


def test_the_files_hold_all_of_it(analysed: tuple[dict[str, Any], Path]) -> None:
    content, folder = analysed
    assert read(folder / "analysis.json").as_json() == json.loads(json.dumps(content))
    assert (folder / "analysis.md").read_text(encoding="utf-8") == markdown(Analysis.model_validate(content))
    layers, heads = np.shape(content["cases"][0]["tasks"]["ape_pocket_twohop_test"]["by_head"]["entropy"])
    assert len(comma_separated(Analysis.model_validate(content)).splitlines()) == 1 + 5 * layers * heads
    names = ("entropy_by_head", "key_norms", "entropy_by_chunks", "score_by_chunks", "entropy_and_score")
    assert {path.stem for path in (folder / "figures").iterdir()} == set(names)


def test_a_second_run_computes_nothing_again(
    analysed: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, folder = analysed
    for place in ("analysis.measure.look", "comparison.running.simple_evaluate"):
        monkeypatch.setattr(f"lm_eval_ape.{place}", lambda *_, **__: pytest.fail("computed again"))
    again = analyze(small(folder), ["lm-eval-ape", "analyze"]).as_json()
    assert again is not None
    assert again["cases"] == content["cases"]
    assert again["correlations"] == content["correlations"]


def test_correlations_are_scipys_over_means() -> None:
    generator = np.random.default_rng(0)
    entropy = generator.normal(size=(12, 5)) + np.arange(5)
    score = -entropy + generator.normal(size=(12, 5))
    for kind, function in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        found = correlate(kind, entropy, score, resamples=200, seed=1)
        expected = function(entropy.mean(0), score.mean(0))
        assert found.value == pytest.approx(expected.statistic)
        assert found.p_value == pytest.approx(expected.pvalue)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high


def test_a_score_that_never_moves_has_no_correlation() -> None:
    found = correlate("pearson", np.arange(8.0).reshape(2, 4), np.ones((2, 4)), resamples=99, seed=1)
    assert found == (None, None, None, None, 4)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model_args": {}}, "model_args must name the model"),
        ({"tasks": ()}, "tasks must name at least one task"),
        ({"output_path": None}, "output_path must name a folder"),
        ({"model_args": {**MODEL, "batch_size": 2}}, "which has a flag of its own: --batch_size"),
        ({"chunks": "2,2"}, "chunks must name each number once"),
        ({"chunks": "0"}, "chunks must be whole numbers of at least 1"),
        ({"chunks": "2.5"}, "chunks must be whole numbers of at least 1"),
        ({"model_args": {**MODEL, "max_chunks": 3}, "chunks": "2"}, "model_args has max_chunks and --chunks"),
        ({"scores": False, "metric": "score"}, "--no-scores scores nothing"),
    ],
)
def test_impossible_options_are_told_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    usual = {"model_args": MODEL, "tasks": "ape_pocket_twohop_test", "output_path": "out"}
    with pytest.raises(ApeError, match=sentence):
        Options.read({**usual, **given})


def test_a_strategy_that_names_its_chunks_is_refused() -> None:
    options = Options.read({"model_args": MODEL, "tasks": "ape_pocket_twohop_test", "output_path": "out"})
    with pytest.raises(ApeError, match="leave it out"):
        cases(options, ("sink[chunks=3]",))


def test_a_damaged_analysis_is_told_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "analysis.json"
    for text, sentence in (("{", "cannot be read"), ("{}", "is no analysis"), ("[]", "is no analysis")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ApeError, match=sentence):
            read(file)


def test_the_command_without_arguments_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze"]) == 0
    assert "Say why parallel encoding hurts" in capsys.readouterr().out


def test_the_report_shows_an_analysis_and_escapes_what_it_says(
    analysed: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    hostile = "<script>alert(1)</script>"
    text = (analysed[1] / "analysis.json").read_text(encoding="utf-8").replace("parallel[chunks=2]", hostile)
    (tmp_path / "analysis.json").write_text(text, encoding="utf-8")
    page = report([str(tmp_path)]).read_text(encoding="utf-8")
    assert "Entropy and score" in page
    assert page.count("<svg") == 5
    assert "&lt;script&gt;alert(1)" in page
    assert hostile not in page


def test_attention_alone_needs_no_score(tmp_path: Path) -> None:
    options = Options.read(
        {
            "model_args": {**MODEL, "max_chunks": 3},
            "tasks": "ape_pocket_needle_test",
            "strategies": "sequential,sink",
            "probe_limit": 2,
            "scores": False,
            "output_path": str(tmp_path),
        }
    )
    content = analyze(options).as_json()
    assert content is not None
    assert [case["chunks"] for case in content["cases"]] == [1, None]
    assert content["cases"][1]["tasks"]["ape_pocket_needle_test"]["mean_chunks"] == 3
    assert content["correlations"] == {}
    assert not (tmp_path / "board").joinpath("board.json").exists()


def test_heads_that_a_calibration_moved_are_set_against_the_first_cases_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = Options.read({"model_args": MODEL, "tasks": "ape_pocket_twohop_test", "output_path": "out"})
    first, second = cases(options, ("sequential", "sink"))[:2]
    spec = second.spec._replace(arguments={**second.spec.arguments, "calibration": "fitted"})
    temperature = [[0.9, 1.2], [1.5, 0.6]]
    factors = FactorTables(temperature=temperature, scale=[[0.9] * 2] * 2)
    found = SimpleNamespace(gradient=SimpleNamespace(granularity="head", start=DEFAULT, factors=factors))
    monkeypatch.setattr("lm_eval_ape.analysis.heads.calibration_file.read", lambda _: found)
    entropy, context = [[1.0, 2.0], [4.0, 3.0]], [[0.4, 0.3], [0.1, 0.2]]
    mass = MassTables(prefix=context, context=context, query=context)
    look = SimpleNamespace(by_head=ByHead(entropy=entropy, logit=[[1.0] * 2] * 2, mass=mass))
    looks: list[Any] = [SimpleNamespace(tasks={"task": look})]
    part = heads_part([first, second._replace(spec=spec)], looks)[0].as_json()
    assert np.allclose(part["distance"], np.abs(np.log(np.array(temperature) / 0.9)))
    expected = stats.spearmanr(np.ravel(part["distance"]), np.ravel(entropy))
    assert part["goes_with"]["task"]["entropy"]["rho"] == pytest.approx(expected.statistic)
    assert part["goes_with"]["task"]["context"]["rho"] == pytest.approx(-expected.statistic)
    assert part["goes_with"]["task"]["logit"]["rho"] is None
