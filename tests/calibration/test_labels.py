"""What labels add: scores through the harness, the oracle, and the rank correlation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from scipy.stats import spearmanr

from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.stability import resample
from lm_eval_ape.calibration.grid.tuning import oracle, rank
from lm_eval_ape.calibration.labels import find_metric
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.run import Calibration, calibrate
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.metrics import Metric


def test_the_oracle_has_the_best_score_and_of_equal_ones_the_nearest_to_1_1() -> None:
    scores = {Point(0.6, 0.6): 0.5, Point(0.8, 1.0): 0.5, Point(1.0, 1.0): 0.4, Point(0.9, 0.9): 0.1}
    assert oracle(scores, Metric("score", higher_is_better=True)) == Point(0.8, 1.0)
    assert oracle(scores, Metric("loss", higher_is_better=False)) == Point(0.9, 0.9)


def test_the_rank_correlation_is_scipys_and_its_interval_that_of_a_loop() -> None:
    generator = np.random.default_rng(0)
    kl = generator.gamma(2.0, size=(6, 9))
    scores = -kl + generator.normal(size=(6, 9))
    weights = resample(6, 150, seed=2)
    found = rank(kl, scores, weights)
    expected = spearmanr(kl.mean(0), scores.mean(0))
    assert found.rho == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    rhos = [spearmanr(row @ kl, row @ scores).statistic for row in weights]
    assert (found.low, found.high) == pytest.approx((np.quantile(rhos, 0.025), np.quantile(rhos, 0.975)))


def test_scores_that_are_all_equal_have_no_rank_correlation() -> None:
    found = rank(np.arange(6.0).reshape(2, 3), np.ones((2, 3)), resample(2, 50, seed=0))
    assert found.rho is None
    assert found.points == 3


def test_labels_score_every_point_and_every_choice_as_the_harness_does(
    options: Callable[..., dict[str, Any]], toy_tasks: str, checkpoint: str
) -> None:
    toys = {"tasks": ["toy_calibration"], "include_path": [toy_tasks], "limit": 5, "num_tokens": 1}
    found = calibrate(Options.read(options(with_labels=True, **toys))).as_json()
    labels, test = found["labels"], found["test"]
    assert (labels["metric"], labels["documents"], test["samples"]) == ("acc", 5, 5)
    grid = found["grid"]
    assert labels["points"] == [point for point, own in zip(grid["points"], grid["choosable"], strict=True) if own]
    rows = {row["name"]: row for row in test["rows"]}
    assert list(rows) == ["chosen", "temperature_only", "scale_only", "default", "neutral", "label_tuned"]

    def accuracy(task: str, point: list[float], limit: int | None) -> float:
        arguments = {"pretrained": checkpoint, "dtype": "float64", "device": "cpu", "chunk_tokens": 40}
        arguments |= {"attn_temperature": point[0], "attn_scale": point[1]}
        manager = TaskManager(include_path=toy_tasks, include_defaults=False)
        results = simple_evaluate("ape-hf", arguments, [task], task_manager=manager, limit=limit, bootstrap_iters=0)
        return float(results["results"][task]["acc,none"])

    for point, score in list(zip(labels["points"], labels["mean_scores"], strict=True))[:2]:
        assert score == pytest.approx(accuracy("toy_calibration", point, 5))
    for name in ("chosen", "neutral"):
        assert rows[name]["score"] == pytest.approx(accuracy("toy_test", rows[name]["point"], None))
        lost = rows["chosen"]["score"] - rows[name]["score"]
        assert rows[name]["less_score_than_chosen"]["mean"] == pytest.approx(lost)
    assert max(labels["mean_scores"]) == labels["oracle"]["score"]


def test_labels_can_be_the_reference_answers_log_likelihood(
    options: Callable[..., dict[str, Any]], toy_tasks: str, checkpoint: str
) -> None:
    toys = {"tasks": ["toy_calibration"], "include_path": [toy_tasks], "limit": 5, "num_tokens": 1}
    found = calibrate(Options.read(options(with_labels=True, metric="answer_nats", **toys))).as_json()
    labels, rows = found["labels"], {row["name"]: row for row in found["test"]["rows"]}
    assert (labels["metric"], labels["higher_is_better"], labels["documents"]) == ("answer_nats", True, 5)
    assert found["test"]["metric"] == "answer_nats"

    def nats(task: str, point: list[float], limit: int | None) -> float:
        """The right choice's log-likelihood, as the harness's own run reports it."""
        arguments = {"pretrained": checkpoint, "dtype": "float64", "device": "cpu", "chunk_tokens": 40}
        arguments |= {"attn_temperature": point[0], "attn_scale": point[1]}
        manager = TaskManager(include_path=toy_tasks, include_defaults=False)
        results = simple_evaluate("ape-hf", arguments, [task], task_manager=manager, limit=limit, bootstrap_iters=0)
        samples = results["samples"][task]
        return float(np.mean([float(sample["resps"][sample["target"]][0][0]) for sample in samples]))

    for point, score in list(zip(labels["points"], labels["mean_scores"], strict=True))[:2]:
        assert score == pytest.approx(nats("toy_calibration", point, 5))
    assert rows["chosen"]["score"] == pytest.approx(nats("toy_test", rows["chosen"]["point"], None))
    assert max(labels["mean_scores"]) == labels["oracle"]["score"]


def test_a_task_without_reference_answers_is_refused() -> None:
    whole_texts: Any = SimpleNamespace(OUTPUT_TYPE="loglikelihood_rolling")
    with pytest.raises(ApeError, match=r"No document of texts has a reference answer \(doc_to_target\); name another"):
        find_metric({"texts": whole_texts}, "answer_nats")


# As the harness's RULER: a metric a length, and -1 in rows of other lengths.
LENGTHS = """
def scores(doc, results):
    likelihoods = [float(result[0]) for result in results]
    right = float(likelihoods.index(max(likelihoods)) == doc["answer"])
    return {"4096": -1.0, "8192": -1.0, "16384": -1.0, ("4096" if doc["answer"] else "8192"): right}
def mean(values):
    kept = [value for value in values if value != -1]
    return sum(kept) / len(kept) if kept else -1
"""


@pytest.mark.slow
@pytest.mark.parametrize("named", [None, "8192"])
def test_lengths_that_share_a_task_are_joined_or_one_is_scored_alone(
    options: Callable[..., dict[str, Any]], toy_tasks: str, checkpoint: str, tmp_path: Path, named: str | None
) -> None:
    folder = Path(shutil.copytree(toy_tasks, tmp_path / "tasks"))
    (folder / "lengths.py").write_text(LENGTHS, encoding="utf-8")
    metrics = ", ".join(
        f"{{metric: '{length}', aggregation: !function lengths.mean, higher_is_better: true}}"
        for length in (4096, 8192, 16384)
    )
    for part in ("calibration", "test"):
        text = f"include: {part}.yaml\ntask: long_{part}\nprocess_results: !function lengths.scores\n"
        (folder / f"long_{part}.yaml").write_text(f"{text}metric_list: [{metrics}]\n", encoding="utf-8")
    asked = {"tasks": ["long_calibration"], "include_path": [str(folder)], "limit": 5, "num_tokens": 1}
    asked |= {"with_labels": True, "metric": named, "output_path": str(tmp_path / "out")}
    found = calibrate(Options.read(options(**asked))).as_json()
    labels, test = found["labels"], found["test"]

    def reported(task: str, point: list[float], limit: int | None) -> tuple[float, int]:
        """Of all lengths the accuracy, as a task without lengths has it; of one, its own score."""
        arguments = {"pretrained": checkpoint, "dtype": "float64", "device": "cpu", "chunk_tokens": 40}
        arguments |= {"attn_temperature": point[0], "attn_scale": point[1]}
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        name = f"long_{task}" if named else f"toy_{task}"
        results = simple_evaluate("ape-hf", arguments, [name], task_manager=manager, limit=limit, bootstrap_iters=0)
        answers = [sample["doc"]["answer"] for sample in results["samples"][name]]
        return results["results"][name][f"{named or 'acc'},none"], answers.count(0) if named else len(answers)

    assert labels["metric"] == test["metric"] == (named or "4096+8192")
    point, score = labels["points"][0], labels["mean_scores"][0]
    assert (score, labels["documents"]) == (pytest.approx(reported("calibration", point, 5)[0]), 2 if named else 5)
    row = test["rows"][0]
    assert (row["score"], len(row["scores"])) == pytest.approx(reported("test", row["point"], None))
    # Found again, the scores are of the same metric.
    again = calibrate(Options.read(options(**asked))).as_json()
    assert (again["labels"], again["test"]) == (labels, test)


def test_metrics_that_are_no_means_are_refused_before_the_model_is_loaded(
    options: Callable[..., dict[str, Any]], toy_tasks: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(toy_tasks, tmp_path / "tasks"))
    (folder / "other.yaml").write_text(
        "include: test.yaml\ntask: toy_other\nmetric_list: [{metric: acc, aggregation: median}, {metric: acc_norm}]\n",
        encoding="utf-8",
    )
    asked = options(tasks=["toy_other"], include_path=[str(folder)], with_labels=True, test_tasks=["toy_other"])
    assert Calibration(Options.read(asked)).metric == Metric("acc_norm", higher_is_better=True)
    with pytest.raises(ApeError, match=r"acc of toy_other is no mean over documents.*; name one of acc_norm"):
        Calibration(Options.read({**asked, "metric": "acc"}))
