"""What a board answers: the closest row, its cost, and whether scores can tell."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.comparison.answer import answer
from lm_eval_ape.comparison.formats import markdown

VALID = Path(__file__).parents[1] / "hostile" / "valid" / "board.json"
TASK = "ape_pocket_twohop_test"


@pytest.fixture
def content() -> dict[str, Any]:
    """A board of `sequential` and `ape` on three documents, whose difference is within noise."""
    return json.loads(VALID.read_text(encoding="utf-8"))


def row(content: dict[str, Any], label: str, kl: float | None, difference: float, *, noise: bool) -> None:
    """Add a row like that of `ape`."""
    added = copy.deepcopy(content["rows"][1])
    added["label"] = label
    ends = {"mean": difference, "low": difference - 0.1, "high": difference + 0.1, "within_noise": noise}
    for score in (added["tasks"][TASK], added["average"]):
        score["difference"] = {**score["difference"], **ends}
        score["kl"] = None if kl is None else {**score["kl"], "mean": kl, "stderr": 0.003}
    content["rows"].append(added)


def read(content: dict[str, Any]) -> Board:
    content["samples"] = {TASK: []}
    return Board.model_validate(content)


def test_the_closest_row_is_named_with_its_cost_and_what_scores_can_tell(content: dict[str, Any]) -> None:
    row(content, "recompute", 0.0123, 0.05, noise=True)
    content["rows"][0]["costs"]["prefill_seconds"]["median"] = 0.1
    content["rows"][2]["costs"]["prefill_seconds"]["median"] = 0.05
    assert answer(read(content)) == (
        "recompute is closest to the sequential model, KL 0.0123 ± 0.003 nats, at 0.50 times its time to the first new "
        "token. Its score differs from that of sequential by +5.00 [-5.00, +15.00], which 3 documents cannot tell from "
        "nothing."
    )


def test_rows_that_lose_beyond_noise_are_named(content: dict[str, Any]) -> None:
    row(content, "sink", 0.5, -0.4, noise=False)
    row(content, "parallel", 0.6, -0.4, noise=False)
    said = answer(read(content))
    assert said.startswith("sink is closest")
    assert "by -40.00 [-50.00, -30.00], beyond noise." in said
    assert said.endswith("sink and parallel are worse than sequential beyond noise.")


def test_times_on_another_device_are_not_compared(content: dict[str, Any]) -> None:
    content["rows"][1]["device"] = "another one"
    assert "time to the first" not in answer(read(content))


def test_without_divergences_scores_alone_speak(content: dict[str, Any]) -> None:
    for score in (content["rows"][1]["tasks"][TASK], content["rows"][1]["average"]):
        score["kl"] = None
    assert answer(read(content)) == "3 documents cannot tell any score from that of sequential."


def test_a_loss_is_worse_where_it_is_higher(content: dict[str, Any]) -> None:
    content["tasks"][TASK]["higher_is_better"] = False
    row(content, "sink", None, 0.4, noise=False)
    row(content, "better", None, -0.4, noise=False)
    assert "sink is worse than sequential beyond noise." in answer(read(content))


def test_without_a_baseline_or_with_tasks_that_rows_do_not_share_nothing_is_said(content: dict[str, Any]) -> None:
    alone = {**content, "baseline": None}
    assert not answer(read(copy.deepcopy(alone)))
    del content["rows"][1]["tasks"][TASK]
    for one in content["rows"]:
        one["average"] = None
    assert not answer(read(content))


def test_it_stands_first_in_markdown_as_text(content: dict[str, Any]) -> None:
    row(content, "<b>`", 0.1, 0.0, noise=True)
    first = markdown(read(content)).splitlines()[0]
    assert "is closest to the sequential model" in first
    assert "<b>" not in first
