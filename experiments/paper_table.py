r"""The paper's protocol on a model and task of your own, its tables beside the paper's figures, as Markdown.

    python experiments/paper_table.py --model_args pretrained=MODEL --tasks TASK_calibration \
        --output_path out > table.md

runs the calibration with K=1 on 25 points and with K=8 on 49, both with labels and on the task's `_test` twin, into
`out/k1` and `out/k8`; what is there already is not computed again. All flags of `lm-eval-ape calibrate` work but
those that the protocol fixes. The paper's figures are for Llama-3.1-8B-Instruct on LongBench's 2WikiMultihopQA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lm_eval_ape.artefacts.calibration import Calibration as Content
from lm_eval_ape.artefacts.calibration import Labels, Parameter, Unseen, UnseenRow
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration import tables
from lm_eval_ape.calibration.flags import add_calibration_flags
from lm_eval_ape.calibration.grid.stability import STABLE_WIDTH, difference, resample
from lm_eval_ape.calibration.options import Options, merge, read_file
from lm_eval_ape.calibration.run import Calibration
from lm_eval_ape.errors import ApeError

FIXED = ("method", "num_tokens", "history", "temperatures", "scales", "with_labels")
RUNS: Mapping[str, int] = {"k1": 1, "k8": 8}


class Row(NamedTuple):
    """A line of the paper's main table.

    Attributes:
        title: The method.
        run: In which of our runs it is found.
        name: Under which name there.
        paper: T, S, mean KL on calibration rows, test F1 x 100, and its difference to label tuning.
    """

    title: str
    run: str
    name: str
    paper: tuple[str, str, str, str, str]


ROWS = (
    Row("APE default", "k1", "default", ("0.9", "0.9", "0.088", "48.99", "+2.76")),
    Row("label-tuned", "k1", "label_tuned", ("0.7", "0.8", "-", "46.23", "0")),
    Row("KL, K=1", "k1", "chosen", ("1.0", "0.9", "0.065", "47.84", "+1.61")),
    Row("KL, K=8", "k8", "chosen", ("0.95", "1.0", "2.54", "48.09", "+1.86")),
    Row("T only (S=0.9), K=1", "k1", "temperature_only", ("1.0", "0.9", "0.065", "47.84", "+1.61")),
    Row("S only (T=0.9), K=1", "k1", "scale_only", ("0.9", "0.8", "0.082", "46.26", "+0.03")),
    Row("untuned", "k1", "neutral", ("-", "-", "-", "-", "-")),
)
PAPER_RANGES = ("0.065 to 0.171", "0.082 to 0.100", "5.9")
PAPER_STABILITY = {"temperature": "1.0, [1.0, 1.0], 0, stable", "scale": "0.7, [0.62, 1.0], 0.38, unstable"}
PAPER_RANK = "0.295, p = 0.15, 25 points"


def render(runs: Mapping[str, Content]) -> str:
    """The paper's tables, filled in.

    Args:
        runs: Content of the calibration files with labels, `k1` and `k8`.

    Returns:
        Markdown.
    """
    parts = [
        _setting(runs),
        _main_table(runs),
        _ranges(runs),
        _stability(runs),
        _ranks(runs),
        _unseen(runs),
        _findings(runs),
    ]
    return "\n\n".join(parts) + "\n"


def _setting(runs: Mapping[str, Content]) -> str:
    first = runs["k1"]
    model, settings, labels = first.model, first.settings, _labels(first)
    tasks = ", ".join(f"`{task.task}`" for task in (*first.tasks, *_test(first).tasks))
    return (
        f"Model `{model.pretrained}` ({model.parameters:,} parameters, {model.dtype.removeprefix('torch.')}), "
        f"{tasks}: {len(first.samples)} rows for calibration, {_test(first).samples} for test. "
        f"Chunks: {settings['chunking']}, chunk_tokens={settings['chunk_tokens']}, "
        f"max_chunks={settings['max_chunks']}. "
        f"Score: {labels.metric} x 100. {first.stability.resamples} resamples. "
        f"Seconds: {_seconds(runs)} on {first.device}. "
        "In brackets: 95% intervals over paired resamples of rows. Paper: Llama-3.1-8B-Instruct, 2WikiMultihopQA; its "
        "ratio of ranges and the last column of its T-only and S-only lines are computed from its other figures."
    )


def _seconds(runs: Mapping[str, Content]) -> str:
    return ", ".join(f"{run.seconds['calibrate']:.0f} (K={run.objective.num_tokens})" for run in runs.values())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _main_table(runs: Mapping[str, Content]) -> str:
    header = ["method", "T", "S", "mean KL", "test score", "vs label-tuned", *(
        f"paper: {name}" for name in ("T", "S", "mean KL", "test F1", "vs label-tuned")
    )]  # fmt: skip
    oracle = _test_row(runs["k1"], "label_tuned")
    rows = []
    for row in ROWS:
        found = _test_row(runs[row.run], row.name)
        temperature, scale = found.point
        versus = "0" if row.name == "label_tuned" else _versus(runs, found, oracle)
        mean = _mean_kl(runs[row.run], found.point)
        ours = [f"{temperature:g}", f"{scale:g}", f"{mean:.3f}", f"{100 * _score(found):.2f}", versus]
        rows.append([row.title, *ours, *row.paper])
    return _table(header, rows)


def _versus(runs: Mapping[str, Content], first: UnseenRow, second: UnseenRow) -> str:
    stability = runs["k1"].stability
    one, two = first.scores or [], second.scores or []
    weights = resample(len(one), stability.resamples, stability.seed)
    found = difference(100 * np.array(one), 100 * np.array(two), weights)
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _test_row(run: Content, name: str) -> UnseenRow:
    return next(row for row in _test(run).rows if row.name == name)


def _test(run: Content) -> Unseen:
    assert run.test is not None
    return run.test


def _labels(run: Content) -> Labels:
    assert run.labels is not None
    return run.labels


def _score(row: UnseenRow) -> float:
    assert row.score is not None
    return row.score


def _mean_kl(run: Content, point: Point) -> float:
    return run.grid.means[point]


def _ranges(runs: Mapping[str, Content]) -> str:
    def line(run: Content) -> list[str]:
        choice = run.choice
        spreads = [f"{one.least:.3f} to {one.most:.3f}" for one in (choice.over_temperature, choice.over_scale)]
        return [*spreads, "-" if choice.range_ratio is None else f"{choice.range_ratio:.1f}"]

    rows = [[f"K={RUNS[name]}", *line(run)] for name, run in runs.items()]
    header = ["", "mean KL over T (S=0.9)", "mean KL over S (T=0.9)", "ratio of ranges"]
    return _table(header, [*rows, ["paper, K=1", *PAPER_RANGES]])


def _stability(runs: Mapping[str, Content]) -> str:
    def cell(found: Parameter) -> str:
        verdict = "stable" if found.stable else "unstable"
        return f"{found.mode:g}, [{found.low:g}, {found.high:g}], {found.width:.2g}, {verdict}"

    found = {name: run.stability for name, run in runs.items()}
    rows = [[f"K={RUNS[name]}", cell(one.temperature), cell(one.scale)] for name, one in found.items()]
    header = [f"mode, 95%, width, verdict (stable: at most {STABLE_WIDTH:g})", "T", "S"]
    paper = ["paper, K=1, 10 resamples", PAPER_STABILITY["temperature"], PAPER_STABILITY["scale"]]
    return _table(header, [*rows, paper])


def _ranks(runs: Mapping[str, Content]) -> str:
    rows = [[f"K={RUNS[name]}", tables.rank_sentence(_labels(run).spearman)] for name, run in runs.items()]
    return _table(["", "Spearman's rho of mean KL and score over points"], [*rows, ["paper, K=1", PAPER_RANK]])


def _unseen(runs: Mapping[str, Content]) -> str:
    rows = []
    for name, run in runs.items():
        chosen = _test_row(run, "chosen")
        cells = [f"K={RUNS[name]}", f"{chosen.mean_kl:.4f}"]
        for rival in ("default", "neutral"):
            found = _test_row(run, rival)
            cells += [f"{found.mean_kl:.4f}", tables.interval(found.more_kl_than_chosen)]
        rows.append(cells)
    header = ["mean KL on test rows", "chosen", "(0.9, 0.9)", "more than chosen", "(1, 1)", "more than chosen"]
    return _table(header, rows)


def _findings(runs: Mapping[str, Content]) -> str:
    """The paper's findings, each with whether it holds here."""
    single = runs["k1"]
    tests = {row.title: _test_row(runs[row.run], row.name) for row in ROWS}
    score = {title: _score(row) for title, row in tests.items()}
    sign = 1 if _labels(single).higher_is_better else -1
    ratio, rank = single.choice.range_ratio, _labels(single).spearman
    stability = single.stability
    rivals = ("KL, K=1", "KL, K=8", "label-tuned", "T only (S=0.9), K=1", "S only (T=0.9), K=1")
    findings = {
        "KL calibration (K=1) scores higher than label tuning": sign * (score["KL, K=1"] - score["label-tuned"]) > 0,
        "KL calibration (K=8) scores higher than label tuning": sign * (score["KL, K=8"] - score["label-tuned"]) > 0,
        "APE's default scores higher than every tuned point": all(
            sign * (score["APE default"] - score[r]) > 0 for r in rivals
        ),
        "T moves the KL more than S does": ratio is not None and ratio > 1,
        "tuning T alone chooses what tuning both chooses": tests["T only (S=0.9), K=1"].point == tests["KL, K=1"].point,
        "T is stable and S is not": stability.temperature.stable and not stability.scale.stable,
        "KL and score are not significantly rank-correlated": None if rank.p_value is None else rank.p_value > 0.05,
    }
    verdicts = {True: "holds", False: "does not hold", None: "undecided: all points score the same"}
    rows = [[finding, verdicts[true]] for finding, true in findings.items()]
    note = "Score differences whose interval holds 0 in the table above are not significant, whichever way they point."
    return f"{_table(['finding of the paper', 'here'], rows)}\n\n{note}"


def main(arguments: Sequence[str]) -> int:
    """Run the protocol and print the tables.

    Args:
        arguments: Flags of `lm-eval-ape calibrate`.

    Raises:
        ApeError: An option is impossible or fixed by the protocol, or there is no output folder or test task.
    """
    parser = argparse.ArgumentParser(
        prog="python experiments/paper_table.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_calibration_flags(parser)
    flags = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    config = flags.pop("config", None)
    given = merge(read_file(config) if config else {}, flags)
    given = {name: value for name, value in given.items() if name not in FIXED or name in flags}
    if fixed := [name for name in FIXED if name in given]:
        raise ApeError(f"The paper's protocol fixes {fixed[0]}; drop it.")
    if "output_path" not in given:
        raise ApeError("The protocol's runs need a folder: --output_path DIR.")
    folder = Path(str(given["output_path"]))
    common = {"cache_path": str(folder / "cache"), **given, "with_labels": True}
    runs = {}
    with redirect_stdout(sys.stderr):
        for name, num_tokens in RUNS.items():
            own = {"num_tokens": num_tokens, "output_path": str(folder / name)}
            calibration = Calibration(Options.read({**common, **own}))
            if not calibration.test_tasks:
                raise ApeError("The tasks have no ..._test twins; name test tasks with --test_tasks.")
            runs[name] = calibration.run()
    if calibration.lm.rank != 0:
        return 0
    text = render(runs)
    (folder / "paper_table.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ApeError as error:
        sys.exit(f"paper_table: {error}")
