"""KL and score against the share of tokens recomputed: what is joined, what is compared, and what is said to lack."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest

from helpers.undrawn import page
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.comparison.statistics import Estimate, estimate
from lm_eval_ape.report.board_figures import Panel, by_recomputed_share
from lm_eval_ape.report.recomputation import NOTHING, Line, difference, lines, score_of
from lm_eval_ape.settings.strategy import resolve

TASK = "toy_answer"


def add(board: dict[str, Any], label: str, right: float = 0.5, nats: float = 1.0, **given: Any) -> dict[str, Any]:
    """Add a row under these settings to a board.

    Args:
        board: The board.
        label: The row's name.
        right: The share of documents that it answers rightly: the first ones.
        nats: Its KL at each token of each document.
        given: Its settings.
    """
    settings = resolve({"strategy": "sink", "positions": "serial", **given}).record
    row = copy.deepcopy(board["rows"][1]) | {"label": label, "settings": settings}
    scores = {task: (np.arange(len(part)) < right * len(part)).astype(float) for task, part in board["samples"].items()}
    found = {task: estimate(values)._asdict() for task, values in scores.items()}
    for name, score in [*row["tasks"].items(), ("average", row["average"])]:
        own = found.get(name, found[TASK])
        score |= {"score": own["mean"], "stderr": own["stderr"], "kl": {"mean": nats, "stderr": 0.1}}
    if (asked := settings["recompute"]) > 0:
        # As it is measured: of 10 tokens, a whole number of them.
        measured = max(1, round(10 * asked)) / 10 if asked <= 1 else 0.3
        row["costs"]["recomputed"] = {"median": measured, "mean": measured, "max": measured}
    row["costs"]["prefill_seconds"] = {"median": 0.25, "mean": 0.3, "max": 1.0}
    for task, part in board["samples"].items():
        for sample, value in zip(part, scores[task], strict=True):
            prompts = [{"tokens": ["a", "b"], "nats": [nats, nats]}]
            sample["runs"][label] = {**sample["runs"]["parallel"], "score": float(value), "kl": prompts}
    board["rows"].append(row)
    return row


@pytest.fixture
def recomputing(board: dict[str, Any]) -> dict[str, Any]:
    """A board with two selectors at two shares, chance with two seeds at one of them, and where nothing is."""
    add(board, "start", right=0.2, nats=2.0)
    add(board, "chance 0", right=0.3, nats=1.6, recompute=0.2, recompute_by="random")
    add(board, "chance 1", right=0.5, nats=1.4, recompute=0.2, recompute_by="random", recompute_seed=1)
    add(board, "asked 40%", right=0.6, nats=0.5, recompute=0.4)
    add(board, "asked 20%", right=0.5, nats=0.8, strategy="recompute", recompute=0.2)
    add(board, "late", right=0.5, nats=0.9, strategy="infoflow", recompute=0.2)
    return board


def found(board: dict[str, Any]) -> dict[str, Line]:
    return {line.name: line for line in lines(Board.model_validate(board))}


def labels(line: Line) -> list[str]:
    return [row.label for row in line.rows]


def table(html: str) -> tuple[list[str], dict[str, list[str]]]:
    """Headers and rows of the section's table, rows of the average by name."""
    section = html[html.index('<section id="recomputation"') :]
    section = section[: section.index("</section>")]
    headers = re.findall(r'<th scope="col">(.*?)</th>', section)
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', section, flags=re.DOTALL)
    cells = {label: re.findall(r"<td[^>]*>(.*?)</td>", rest) for label, rest in reversed(rows)}
    return [header.replace("&#39;", "'") for header in headers], cells


def test_a_line_is_a_selector_and_starts_where_nothing_is_recomputed(recomputing: dict[str, Any]) -> None:
    drawn = found(recomputing)
    assert {name: labels(line) for name, line in drawn.items()} == {
        NOTHING: ["start"],
        "random": ["chance 0", "chance 1"],
        "query": ["asked 20%", "asked 40%"],
        "query, layers last:2": ["late"],
    }
    assert all([row.label for row in drawn[name].start] == ["start"] for name in drawn if name != NOTHING)


def test_lines_go_through_measured_shares_and_the_means_of_seeds(recomputing: dict[str, Any]) -> None:
    # Contexts of few tokens: what is recomputed is not quite what was asked for.
    recomputing["rows"][-2]["costs"]["recomputed"]["mean"] = 0.25
    drawn = lines(Board.model_validate(recomputing))
    values = {row["label"]: Estimate(row["average"]["kl"]["mean"], 0.1) for row in recomputing["rows"][4:]}
    axes = by_recomputed_share(drawn, [Panel("toy", "KL", values)]).axes[0]
    paths = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert paths["random"] == [[0.0, 2.0], [20.0, pytest.approx(1.5)]]
    assert paths["query"] == [[0.0, 2.0], [25.0, 0.8], [40.0, 0.5]]
    assert paths["query, layers last:2"] == [[0.0, 2.0], [20.0, 0.9]]
    assert [text.get_text() for text in axes.texts] == ["seed 0", "seed 1"]
    bars = [container.lines[2][0].get_segments()[0] for container in axes.containers]
    heights = [np.diff(bar[:, 1]).item() for bar in bars]
    assert heights == pytest.approx([2 * 1.96 * 0.1] * 6)


def test_other_settings_are_lines_of_their_own_with_their_own_control(recomputing: dict[str, Any]) -> None:
    add(recomputing, "hot", recompute=0.2, attn_temperature=0.8)
    add(recomputing, "unrelated", positions="shared", max_chunks=7)
    # Neither names for settings nor the kernel part what is read alike.
    add(recomputing, "kernel", recompute=0.6, strategy="recompute", attn_backend="cpu_flash")
    drawn = found(recomputing)
    assert labels(drawn["query (attn_temperature=1.0)"]) == ["asked 20%", "asked 40%", "kernel"]
    hot = drawn["query (attn_temperature=0.8)"]
    assert labels(hot) == ["hot"]
    assert not hot.start
    assert not hot.controls_of(hot.rows[0])
    assert not any("unrelated" in labels(line) for line in drawn.values())


def test_a_number_of_tokens_stands_at_its_measured_share_or_is_said_to_have_no_place(
    recomputing: dict[str, Any],
) -> None:
    row = add(recomputing, "tokens", recompute=512)
    assert labels(found(recomputing)["query"]) == ["asked 20%", "tokens", "asked 40%"]
    assert table(page(board=recomputing))[1]["tokens"][2] == "30.0%"
    row["costs"] = None
    html = page(board=recomputing)
    assert "tokens: not in the figures" in html
    assert table(html)[1]["tokens"][2] == "512 tokens"


def test_the_table_pairs_rows_with_the_mean_of_as_many_tokens_at_random(recomputing: dict[str, Any]) -> None:
    headers, rows = table(page(board=recomputing))
    assert headers == [
        "Row", "Task", "Selector", "Recomputed", "KL (nats)", "KL less random's", "Score", "Score less random's",
        "Prefill s", "Prefill of sequential's",
    ]  # fmt: skip
    task, selector, share, kl, kl_change, score, change, *prefill = rows["asked 20%"]
    assert [task, selector, share, kl] == ["average of 2", "query", "20.0%", "0.8 [0.604, 0.996]"]
    assert kl_change == "-0.7000 [-0.7000, -0.7000] ▲"
    assert score.startswith("50.00 [")
    # Right on half of the documents, where the seeds' mean is right on 0.4 of them.
    assert change.startswith("+10.00 [")
    assert change.endswith("▲")
    assert prefill == ["0.25", "50%"]
    assert rows["chance 1"][1] == "random, seed 1"
    # No control: neither of themselves nor of another share.
    for label in ("chance 0", "asked 40%", "start"):
        assert not rows[label][4]
        assert not rows[label][6]


def test_only_documents_with_all_values_are_paired(recomputing: dict[str, Any]) -> None:
    samples = recomputing["samples"][TASK]
    for sample in samples[:30]:
        sample["runs"]["chance 1"]["score"] = None
    content = Board.model_validate(recomputing)
    rows = {row.label: row for row in content.rows}
    controls = [rows["chance 0"], rows["chance 1"]]
    change = difference(content, [TASK], rows["asked 20%"], controls, score_of)
    assert change is not None
    # Of the other 90 documents 30 are right, of chance 6 with one seed and 30 with the other.
    assert change.mean == pytest.approx(30 / 90 - (6 + 30) / 2 / 90)
    for sample in samples:
        sample["runs"].pop("chance 0")
    content = Board.model_validate(recomputing)
    assert difference(content, [TASK], rows["asked 20%"], controls, score_of) is None


def test_a_missing_control_is_said_and_points_are_named_for_those_who_do_not_see_them(
    recomputing: dict[str, Any],
) -> None:
    html = page(board=recomputing)
    assert "The control is missing for asked 40%: no row" in html
    points = "random: chance 0 (seed 0) at 20.0%, chance 1 (seed 1) at 20.0%; query: asked 20% at 20.0%, asked 40% at"
    assert f"{NOTHING}: start at 0.0%; {points}" in html
    add(recomputing, "chance 40%", recompute=0.4, recompute_by="random")
    assert "control is missing" not in page(board=recomputing)
    recomputing["rows"] = [row for row in recomputing["rows"] if not row["label"].startswith("chance")]
    for part in recomputing["samples"].values():
        for sample in part:
            sample["runs"] = {name: run for name, run in sample["runs"].items() if not name.startswith("chance")}
    html = page(board=recomputing)
    assert "The control is missing for asked 20%, asked 40%, late: no row" in html
    assert "KL less random" not in table(html)[0]


def test_boards_without_rows_that_recompute_have_no_such_section(board: dict[str, Any]) -> None:
    assert 'id="recomputation"' not in page(board=board)
    add(board, "start")
    assert 'id="recomputation"' not in page(board=board)


def test_rows_of_older_versions_may_be_where_lines_start(recomputing: dict[str, Any]) -> None:
    settings = next(row["settings"] for row in recomputing["rows"] if row["label"] == "start")
    for name in ("recompute", "recompute_by", "recompute_layers", "recompute_seed"):
        del settings[name]
    assert [row.label for row in found(recomputing)["query"].start] == ["start"]


def test_without_divergences_and_times_there_is_the_score(recomputing: dict[str, Any]) -> None:
    for row in recomputing["rows"]:
        row |= {"kl": None, "costs": None}
        for score in (*row["tasks"].values(), row["average"]):
            score["kl"] = None
    for part in recomputing["samples"].values():
        for sample in part:
            for run in sample["runs"].values():
                run["kl"] = None
    html = page(board=recomputing)
    assert "Mean score against the share of tokens recomputed." in html
    assert "Mean KL from the sequential model against the share" not in html
    headers = ["Row", "Task", "Selector", "Recomputed", "Score", "Score less random's"]
    assert table(html)[0] == headers
