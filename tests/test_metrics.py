"""Which metrics are means over documents, and which rows have a value of one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from lm_eval.api import metrics as aggregations
from lm_eval.tasks.ruler.common_utils import aggregate_metrics

from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.mean_metrics import is_mean, joinable, leaves_out, mean_metric
from lm_eval_ape.harness.metrics import Metric, Outcome, Scored, find
from lm_eval_ape.tasks.longbench.scoring import mean_of_group

NAN = math.nan


class Task:
    """As much of a task as a lookup of metrics reads."""

    def __init__(self, **aggregation: Callable[[Any], Any]) -> None:
        self._aggregation = aggregation

    def aggregation(self) -> dict[str, Callable[[Any], Any]]:
        return self._aggregation

    def higher_is_better(self) -> dict[str, bool]:
        return dict.fromkeys(self._aggregation, True)


def task(**aggregation: Callable[[Any], Any]) -> Any:
    return Task(**aggregation)


def accuracy(values: list[Any]) -> float:
    """Of right answers, counted."""
    return values.count(1) / len(values)


@pytest.mark.parametrize(
    "aggregate", [aggregations.mean, aggregations.nanmean, aggregate_metrics, mean_of_group, accuracy]
)
def test_aggregations_that_give_the_mean_are_means(aggregate: Callable[[Any], Any]) -> None:
    assert is_mean(task(it=aggregate), "it")


@pytest.mark.parametrize(
    "name",
    ["median", "perplexity", "weighted_perplexity", "bits_per_byte", "f1_score", "matthews_corrcoef", "bleu", "chrf",
     "ter", "brier_score", "bypass_agg"],
)  # fmt: skip
def test_aggregations_over_a_corpus_are_none(name: str) -> None:
    assert not is_mean(task(it=getattr(aggregations, name)), "it")


def test_a_metric_without_an_aggregation_is_a_mean_as_the_harness_makes_it() -> None:
    assert is_mean(task(), "it")


@pytest.mark.parametrize(
    ("aggregate", "absent"), [(aggregate_metrics, -1.0), (mean_of_group, None), (aggregations.nanmean, NAN)]
)
def test_signs_of_no_value_are_known_from_the_aggregation(
    aggregate: Callable[[Any], Any], absent: float | None
) -> None:
    found = [sign for sign in (-1.0, None, NAN) if leaves_out(task(it=aggregate), "it", sign)]
    assert found == [absent] or (aggregate is aggregations.nanmean and absent in found)
    assert not leaves_out(task(it=aggregations.mean), "it", absent)


def test_metrics_that_leave_rows_out_can_be_joined_and_others_not() -> None:
    lengths = {"4096": aggregate_metrics, "8192": aggregate_metrics}
    assert joinable("toy", task(**lengths, score=aggregations.mean), None) == ("4096", "8192")
    assert joinable("toy", task(**lengths), "8192") == ("8192",)
    assert joinable("toy", task(score=aggregations.mean, **lengths), None) == ("score",)
    assert mean_metric("toy", task(ppl=aggregations.perplexity, **lengths), None) == "4096"
    with pytest.raises(ApeError, match=r"toy has no metric 4097; it has: 4096, 8192. Did you mean '4096'"):
        mean_metric("toy", task(**lengths), "4097")


def run(reported: dict[str, Any], *rows: dict[str, Any], name: str = "one", first: int = 0, **more: Any) -> Scored:
    """A run of `toy` whose rows have these values, on documents from a number on."""
    documents = {first + n: Outcome(first + n, row) for n, row in enumerate(rows)}
    names = dict.fromkeys([*reported, *(metric for row in rows for metric in row)], True)
    return Scored("toy", name, name, names, documents, reported, **more)


def test_values_are_those_whose_mean_is_reported() -> None:
    rows = ({"a": -1.0}, {"a": 0.5}, {"a": 1.0})
    assert find([run({"a": 0.75}, *rows)], None).values == [{1: 0.5, 2: 1.0}]
    assert find([run({"a": 0.5 / 3}, *rows)], None).values == [{0: -1.0, 1: 0.5, 2: 1.0}]
    for sign in (None, NAN):
        assert find([run({"a": 0.75}, {"a": sign}, *rows[1:])], None).values == [{1: 0.5, 2: 1.0}]
    assert find([run({"a": 0.75}, {}, *rows[1:])], None).values == [{1: 0.5, 2: 1.0}]


@pytest.mark.parametrize(
    ("reported", "value", "sentence"),
    [
        (0.7, 0.4, "a of toy is 0.7 in one, but the mean over its samples is 0.45"),
        (NAN, NAN, "The metric a of toy gives nan for document 0 of one, where a number is needed"),
        (0.7, None, "gives None for document 0"),
        (0.5, "0.5", "gives '0.5' for document 0"),
        (math.inf, math.inf, "gives inf for document 0"),
        (None, None, "gives None for document 0"),
    ],
)
def test_scores_that_contradict_the_report_are_refused(reported: Any, value: Any, sentence: str) -> None:
    with pytest.raises(ApeError, match=sentence):
        find([run({"a": reported}, {"a": value}, {"a": 0.5})], "a")


def test_rows_with_a_value_of_just_one_of_several_metrics_are_joined() -> None:
    rows = ({"a": 0.25, "b": -1.0}, {"a": -1.0, "b": 0.5}, {"a": 0.75, "b": -1.0})
    found = find([run({"a": 0.5, "b": 0.5}, *rows)], None)
    assert found.metric == Metric("a+b", True, ("a", "b"))
    assert found.values == [{0: 0.25, 1: 0.5, 2: 0.75}]
    # A row with both or with neither: the first metric alone.
    for other, mean in (({"a": -1.0, "b": -1.0}, 0.5), ({"a": 0.5, "b": 0.5}, 0.5)):
        found = find([run({"a": 0.5, "b": mean}, *rows, other)], None)
        assert found.metric == Metric("a", True)
    # A metric of all rows is none of a length.
    found = find([run({"a": 0.5, "b": 0.5, "c": 0.0}, *({**row, "c": 0.0} for row in rows))], None)
    assert found.metric.name == "a+b"


def test_minus_one_in_all_rows_is_no_value_unless_another_run_has_one_there() -> None:
    wrong = run({"a": -1.0}, {"a": -1.0}, {"a": -1.0})
    right = run({"a": 0.0}, {"a": -1.0}, {"a": 1.0}, name="two")
    assert find([wrong, right], None).values == [{0: -1.0, 1: -1.0}, {0: -1.0, 1: 1.0}]
    elsewhere = run({"a": 0.0}, {"a": -1.0}, {"a": 1.0}, name="two", first=7)
    for runs in ([wrong], [wrong, elsewhere]):
        with pytest.raises(ApeError, match="No row of toy in one has a value of a"):
            find(runs, None)
    assert find([wrong._replace(signs=())], None).values == [{0: -1.0, 1: -1.0}]


def test_the_first_metric_that_is_a_mean_is_taken_and_the_others_are_told() -> None:
    one = run({"a": 2.0, "b": 0.5}, {"a": 0.5, "b": 0.25}, {"a": 0.5, "b": 0.75})
    found = find([one], None)
    assert found.metric.name == "b"
    assert found.instead is not None
    assert found.instead.startswith("a of toy is 2 in one, but the mean")
    # That only some runs say so is no reason to take another one.
    with pytest.raises(ApeError, match="a of toy is 2 in one"):
        find([one, run({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.25}, {"a": 0.5, "b": 0.75}, name="two")], None)
    known = find([one._replace(reported={"a": 0.5, "b": 0.5})], None, ["a"])
    assert (known.metric.name, known.instead) == ("b", "a is no mean over documents.")
