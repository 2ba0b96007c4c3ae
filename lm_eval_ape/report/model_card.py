"""A model card's part about a calibrated setting, in Markdown, with the Hub's metadata where that can be filled."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.board import Board, Row, Score
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL
from lm_eval_ape.calibration.document import chosen_arguments
from lm_eval_ape.calibration.tables import frontier_sentences, gradient_sentences
from lm_eval_ape.display.escaping import code, markdown
from lm_eval_ape.errors import ApeError
from lm_eval_ape.pocket import POCKET
from lm_eval_ape.settings.strategy import DEFAULTS
from lm_eval_ape.tasks.longbench.data import HUB_REPOSITORY

_LIMITS = (
    "The choice makes parallel encoding's next-token distributions as close as the grid allows to the sequential "
    "model's on these samples. It does not show that they are close, nor that scores on other tasks, lengths or "
    "numbers of chunks are kept: measure those with `lm-eval-ape compare`."
)


def card(calibration: Calibration, board: Board | None = None) -> str:
    """Write the part of a model card.

    Args:
        calibration: Content of `calibration.json`.
        board: Content of a `board.json` that may hold a row of this model and setting.

    Returns:
        Markdown, after a metadata block where the board has results on data sets of the Hugging Face hub.

    Raises:
        ApeError: The board has no row of this model with the calibrated setting.
    """
    row = None if board is None else find_row(calibration, board)
    parts = [_metadata(calibration, board, row) if board and row else "", *_text(calibration)]
    if board and row:
        parts += _scores(board, row)
    parts += ["### What this does not show\n", _LIMITS, "", _versions(calibration)]
    return "\n".join(part for part in parts if part is not None).lstrip() + "\n"


def find_row(calibration: Calibration, board: Board) -> Row:
    """The board's row with the calibrated model, settings, T and S.

    Raises:
        ApeError: There is none.
    """
    choice = calibration_file.found(calibration)
    chosen: dict[str, Any] = {"attn_temperature": choice.attn_temperature, "attn_scale": choice.attn_scale}
    if choice.factors is not None:
        chosen = {"factors_sha256": choice.factors.digest}
    wanted = {**calibration.settings, **chosen}
    weights = calibration.model.weights_sha256
    for row in board.rows:
        model = (row.identity or {}).get("model", {})
        settings = row.settings or {}
        if model.get("weights_sha256") == weights and all(settings.get(key) == wanted[key] for key in wanted):
            return row
    raise ApeError(
        f"The board has no row of {calibration.model.pretrained} with T={choice.attn_temperature:g}, "
        f"S={choice.attn_scale:g} and the calibration's other settings; it has "
        f"{', '.join(row.label for row in board.rows)}. Run lm-eval-ape compare with "
        "--strategies sequential,ape@CALIBRATION and the calibration's --model_args, or leave out --board."
    )


def _text(calibration: Calibration) -> Iterator[str]:
    model, choice, objective = calibration.model, calibration.choice, calibration.objective
    stability, tasks = calibration.stability, calibration.tasks
    grid = calibration.grid
    yield "## Parallel context encoding\n"
    yield (
        "Calibrated for [Adaptive Parallel Encoding](https://arxiv.org/abs/2502.05431) without labels: attention "
        f"{_found(calibration)} for {code(model.pretrained)}"
        + (f" at commit {code(model.commit)}" if model.commit else "")
        + f" ({markdown(model.dtype.removeprefix('torch.'))}, {model.parameters:,} parameters).\n"
    )
    yield f"```bash\nlm_eval --model ape-hf --model_args {shlex.quote(_arguments(calibration))} --tasks TASK\n```\n"
    yield "### How it was chosen\n"
    listed = ", ".join(
        f"{code(task.task)} ({task.samples} samples, version {markdown(task.version)})" for task in tasks
    )
    yield f"- On {listed}; no label was read."
    yield (
        f"- Least {calibration.chosen_by.replace('KL', 'KL divergence')} from the sequential model's next-token "
        f"distributions over K = {objective.num_tokens} tokens (history: {objective.history}), of "
        f"{sum(grid.choosable)} points with "
        f"T in {grid.temperatures} and S in {grid.scales}."
    )
    if frontier := calibration.frontier:
        first = frontier_sentences(frontier, calibration.chosen_by)[0]
        yield f"- Among {len(frontier.candidates)} ways to encode. {markdown(first)}"
    if calibration.gradient:
        yield from (f"- {markdown(sentence)}" for sentence in gradient_sentences(calibration.gradient))
    changed = {
        name: value
        for name, value in calibration.settings.items()
        if value != DEFAULTS.get(name) and name != "strategy"
    }
    yield f"- Settings: {', '.join(code(f'{name}={value}') for name, value in changed.items()) or 'the defaults'}."
    for letter, found in (("T", stability.temperature), ("S", stability.scale)):
        yield (
            f"- {letter} is {'stable' if found.stable else '**unstable**'}: 95% of {stability.resamples} "
            f"bootstrap resamples choose {found.low:g} to {found.high:g}."
        )
    for edge in choice.edges:
        yield f"- The choice lies on the grid's edge ({markdown(edge)}): a better one may lie beyond it."
    yield "\n| point | T | S | mean KL (nats) | more than chosen, 95% interval |\n|---|---:|---:|---:|---:|"
    means, chosen = grid.means, choice.point
    yield f"| chosen | {chosen.temperature:g} | {chosen.scale:g} | {choice.mean_kl:.4g} | |"
    beats = stability.beats
    for title, beat, point in (("APE's default", beats.default, DEFAULT), ("untuned", beats.neutral, NEUTRAL)):
        ends = "" if point == chosen else f"{beat.mean:.4g} [{beat.low:.4g}, {beat.high:.4g}]"
        yield f"| {title} | {point.temperature:g} | {point.scale:g} | {means[point]:.4g} | {ends} |"
    yield ""


def _found(calibration: Calibration) -> str:
    """T and S in words."""
    found = calibration_file.found(calibration)
    if found.factors is not None:
        layers, heads = found.factors.shape
        there = f"which `{calibration_file.FILE_NAME}` holds"
        return f"temperature T and scale S for {layers} layers x {heads} heads, {there},"
    return f"temperature **T = {found.attn_temperature:g}**, scale **S = {found.attn_scale:g}**"


def _arguments(calibration: Calibration) -> str:
    model = calibration.model
    named = {name: getattr(model, name) for name in ("pretrained", "revision", "peft", "delta")}
    given = {name: value for name, value in named.items() if value not in (None, "main")}
    defaults = {**DEFAULTS, "chunk_tokens": 4000}
    settings = calibration.settings
    if settings["chunking"] != "tokens":
        defaults["chunk_tokens"] = None
    given |= {name: value for name, value in settings.items() if name == "strategy" or value != defaults.get(name)}
    given |= chosen_arguments(calibration, calibration_file.FILE_NAME)
    return ",".join(f"{name}={str(value).encode('unicode_escape').decode()}" for name, value in given.items())


def _scores(board: Board, row: Row) -> Iterator[str]:
    base = next((other for other in board.rows if other.label == board.baseline), None)
    yield "### Scores\n"
    yield "| task | metric | documents | sequential | calibrated | difference, paired 95% interval | p |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for name, score in row.tasks.items():
        task, difference = board.tasks[name], score.difference
        before = base.tasks.get(name) if base else None
        cells = [code(name), markdown(task.metric), str(task.documents), _percent(before), _percent(score)]
        if difference is None or difference.low is None or difference.high is None:
            cells += ["", ""]
        else:
            ends = f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
            cells += [f"{100 * difference.mean:+.2f} {ends}", f"{difference.p_value:.3f}"]
        yield f"| {' | '.join(cells)} |"
    yield "\nScores x100 ± standard error, through lm-evaluation-harness.\n"


def _percent(score: Score | None) -> str:
    if score is None:
        return ""
    return f"{100 * score.score:.2f}" + ("" if score.stderr is None else f" ± {100 * score.stderr:.2f}")


def _versions(calibration: Calibration) -> str:
    listed = ", ".join(f"{name} {version}" for name, version in calibration.versions.items())
    return markdown(f"Calibrated {calibration.created} on {calibration.device} with {listed}.")


def _metadata(calibration: Calibration, board: Board, row: Row) -> str:
    """The Hub's `model-index`: results on its own data sets, as its specification asks; nothing if there are none."""
    choice, results = calibration.choice, []
    for name, score in row.tasks.items():
        task = board.tasks[name]
        if (dataset := _dataset(task.config or {})) is None:
            continue
        path, config, split = dataset
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=path,
                dataset_name=f"{path.split('/')[-1]} ({name})",
                dataset_config=config,
                dataset_split=split,
                metric_type=task.metric,
                metric_name=f"{task.metric} x100, APE T={choice.attn_temperature:g} S={choice.attn_scale:g}",
                metric_value=round(100 * score.score, 4),
            )
        )
    if not results:
        return ""
    pretrained = calibration.model.pretrained
    name = Path(pretrained).name if Path(pretrained).expanduser().exists() else pretrained
    on_hub = pretrained != POCKET and name == pretrained
    data = ModelCardData(
        model_name=name.split("/")[-1],
        eval_results=results,
        base_model=pretrained if on_hub else None,
        tags=["lm-eval-ape", "adaptive-parallel-encoding"],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _dataset(config: Mapping[str, Any]) -> tuple[str, str | None, str | None] | None:
    """A task's data set on the hub: its name, configuration and split; None for other data."""
    arguments = config.get("dataset_kwargs") or {}
    if name := arguments.get("longbench_dataset"):
        return HUB_REPOSITORY, str(name), config.get("test_split")
    path = config.get("dataset_path")
    # The harness reads local files through builders of these names.
    if not path or path in ("json", "csv", "parquet", "text", "arrow") or config.get("custom_dataset"):
        return None
    return str(path), config.get("dataset_name"), config.get("test_split") or config.get("validation_split")
