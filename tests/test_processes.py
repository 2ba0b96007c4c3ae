"""Several processes give what one gives, and end together when one of them fails."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from sqlitedict import SqliteDict

from helpers import harness, launcher, scale_out
from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.calibration.document import model_args_line
from lm_eval_ape.harness.response_cache import STAMP
from lm_eval_ape.runtime.processes import Processes

HELPERS = Path(__file__).parent / "helpers"
DATA = """
import json, pathlib, datasets
def load(**_):
    rows = json.loads(pathlib.Path(__file__).with_name("rows.json").read_text())
    return {"test": datasets.Dataset.from_list(rows)}
def single(**_):
    return {"test": load()["test"].select([0])}
def texts(**_):
    # One without a context, which is scored otherwise than the others, by one process alone.
    keep = lambda row, number: row | {"context": row["context"] * (number != 3)}
    return {"test": load()["test"].map(keep, with_indices=True)}
"""
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "toy_answer": ("generate_until", "load", {}),
    "toy_choice": ("multiple_choice", "load", {}),
    "toy_text": ("loglikelihood_rolling", "texts", {}),
    "toy_fewshot": ("generate_until", "load", {"num_fewshot": 1, "fewshot_split": "test"}),
    "toy_single": ("multiple_choice", "single", {}),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five documents, and one of them alone."""
    folder = tmp_path_factory.mktemp("tasks")
    docs = harness.documents(5, passages=2, words=4)
    (folder / "rows.json").write_text(json.dumps(docs), encoding="utf-8")
    (folder / "data.py").write_text(DATA, encoding="utf-8")
    for name, (kind, load, more) in KINDS.items():
        config = harness.task(name, kind, [], **more)
        config.pop("custom_dataset")
        text = f"custom_dataset: !function data.{load}\n" + yaml.safe_dump(config)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def one(checkpoint: str, tasks: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a single process writes."""
    folder = tmp_path_factory.mktemp("one")
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            scale_out.main(checkpoint, tasks, str(folder))
    finally:
        logging.disable(logging.NOTSET)
    return folder


Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def three(checkpoint: str, tasks: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """What three processes write, and print."""
    folder = tmp_path_factory.mktemp("three")
    done = launcher.run(launcher.accelerate(3), str(HELPERS / "scale_out.py"), checkpoint, tasks, str(folder))
    return folder, done


def read(folder: Path, pattern: str) -> Any:
    (path,) = folder.glob(pattern)
    return json.loads(path.read_text(encoding="utf-8"))


def without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    """A file's content but for what says when and where it was made."""
    return {name: value for name, value in content.items() if name not in names}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ape", "sequential", "recompute"])
def test_three_processes_evaluate_as_one_to_the_last_digit(strategy: str, one: Path, three: tuple[Path, Done]) -> None:
    alone, together = read(one, f"{strategy}.*.json"), read(three[0], f"{strategy}.*.json")
    assert set(alone["samples"]) == set(KINDS)
    assert together == alone


@pytest.mark.slow
def test_in_batches_three_processes_differ_from_one_by_rounding_alone(one: Path, three: tuple[Path, Done]) -> None:
    alone, together = (read(folder, "batched.*.json")["samples"] for folder in (one, three[0]))
    for name in ("toy_answer", "toy_fewshot"):
        assert [sample["resps"] for sample in together[name]] == [sample["resps"] for sample in alone[name]]
    scores = [
        [float(score) for sample in samples["toy_choice"] for ((score, _),) in sample["resps"]]
        for samples in (alone, together)
    ]
    # Of float64; batches of other rows are padded to other lengths.
    assert scores[1] == pytest.approx(scores[0], rel=0, abs=1e-10)


@pytest.mark.slow
def test_every_request_is_read_by_one_process_alone(one: Path, three: tuple[Path, Done]) -> None:
    logs = [
        [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in (one, three[0])
    ]
    alone, together = (sorted(map(str, log)) for log in logs)
    assert together == alone


@pytest.mark.slow
def test_each_process_keeps_its_own_responses_for_the_harness(one: Path, three: tuple[Path, Done]) -> None:
    def keys(path: Path) -> set[str]:
        with SqliteDict(str(path), flag="r") as responses:
            return set(responses) - {STAMP}

    (alone,) = map(keys, one.glob("responses_rank*.db"))
    shares = [keys(path) for path in sorted(three[0].glob("responses_rank*.db"))]
    assert len(shares) == 3
    assert all(shares)
    assert set().union(*shares) == alone
    # The one document of `toy_single` asks what another process is asked by `toy_choice`.
    assert sum(map(len, shares)) == len(alone) + 3


def calibration(file: Path) -> dict[str, Any]:
    """A calibration file's content but for dates and seconds."""
    content = without(calibration_file.read(file).as_json(), "created", "seconds")
    if frontier := content.get("frontier"):
        frontier["candidates"] = [without(one, "seconds") for one in frontier["candidates"]]
        content["frontier"] = without(frontier, "sequential_seconds")
    return content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "parts"), [("grid", {"entropy"}), ("fit", {"gradient"}), ("search", {"frontier"})], ids=str
)
def test_three_processes_calibrate_as_one_to_the_last_digit(
    method: str, parts: set[str], one: Path, three: tuple[Path, Done]
) -> None:
    alone, together = (calibration(folder / method) for folder in (one, three[0]))
    assert {"gradient", "entropy", "frontier"} & set(alone) == parts
    assert together == alone


@pytest.mark.slow
def test_each_process_measures_a_share_of_the_samples(three: tuple[Path, Done]) -> None:
    shares = [path.read_text().splitlines() for path in sorted((three[0] / "grid" / "cache").glob("signals.*.jsonl"))]
    assert [len(share) for share in shares] == [2, 2, 1]


@pytest.mark.slow
def test_three_processes_compare_and_analyze_as_one_to_the_last_digit(one: Path, three: tuple[Path, Done]) -> None:
    for name in ("sequential", "ape"):
        (alone,), (together,) = (list((f / "board" / name).rglob("samples_*.jsonl")) for f in (one, three[0]))
        assert together.read_bytes() == alone.read_bytes()
    alone, together = (read(folder, "board/ape/kl.json") for folder in (one, three[0]))
    assert len(alone["samples"]) == 5
    assert together == alone
    for name in ("sequential", "ape"):
        alone, together = (read(folder, f"board/{name}/answer_nats.json") for folder in (one, three[0]))
        assert len(alone["samples"]) == 5
        assert together == alone
    alone, together = (read(folder, "analysis/analysis.json") for folder in (one, three[0]))
    assert without(together, "created", "command") == without(alone, "created", "command")


@pytest.mark.slow
def test_the_first_process_alone_writes_results_and_speaks(one: Path, three: tuple[Path, Done]) -> None:
    folder, done = three

    def names(root: Path) -> list[str]:
        files = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        shared = [name for name in files if not re.search(r"\.\d\.jsonl$|_rank\d\.db$", name)]
        return sorted(re.sub(r"\d{4}-[^/]*(?=\.json)|\.\d+(?=\.json)|model__[^/]*", "", name) for name in shared)

    assert names(folder) == names(one)
    bars = {"Loading weights": 9, r"Attention entropy, \d+ points": 1, "Scoring with labels": 2, "Fitting T and S": 1}
    bars["Scoring reference answers"] = 2
    assert {bar: len(re.findall(f"{bar}:   0%", done.stderr)) for bar in bars} == bars
    # Once in each of the three evaluations that are not sequential.
    assert done.stderr.count("they have no context and are read sequentially") == 3
    lines = [line for line in done.stdout.splitlines() if re.search("attn_temperature=|calibration=", line)]
    chosen = {name: calibration_file.read(folder / name) for name in ("grid", "fit", "search")}
    assert lines == [model_args_line(content, f"{folder}/{name}") for name, content in chosen.items()]


@pytest.mark.slow
def test_one_process_goes_on_where_three_stopped(
    checkpoint: str, tasks: str, three: tuple[Path, Done], tmp_path: Path
) -> None:
    # Files of results are gone, as if they had not come so far.
    folder = Path(shutil.copytree(three[0], tmp_path / "three"))
    gone = (
        *(f"{name}/calibration.json" for name in ("grid", "fit", "search")),
        "board/board.json",
        "analysis/analysis.json",
    )
    before = {name: (folder / name).read_text(encoding="utf-8") for name in gone}
    for name in gone:
        (folder / name).unlink()
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "cache" in path.parts}
    kept |= {path: path.read_bytes() for path in (folder / "board").rglob("run.json")}
    assert len([path for path in kept if path.suffix == ".jsonl"]) > 9
    scale_out.run_commands(checkpoint, tasks, folder)
    assert {path: path.read_bytes() for path in kept} == kept
    assert not {path for path in folder.rglob("*.jsonl") if "cache" in path.parts} - set(kept)
    for name in gone[:3]:
        kept_one = tmp_path / "before.json"
        kept_one.write_text(before[name], encoding="utf-8")
        assert calibration(folder / name) == calibration(kept_one)


@pytest.fixture(scope="module")
def failures(checkpoint: str, tasks: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes say and return that nobody watches, for each way in which they fail."""
    folder = tmp_path_factory.mktemp("failures")
    flags = ["--model_args", f"pretrained={checkpoint},dtype=float64,chunking=passages", "--include_path", tasks]
    flags += ["--tasks", "toy_choice", "--temperatures", "1.0", "--scales", "1.0", "--num_tokens", "1"]
    launcher.run([sys.executable], str(HELPERS / "failing.py"), str(folder), *flags, "--device", "cpu")
    return folder


ENDED = r"Process (\d)(?: or (\d))? of 3 ended before it had handed over its results\. .* it was killed, perhaps"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "statuses", "told"),
    [
        ("one does not start", [2, 2, 2], r"calibrate \(process 1 of 3\): the sample is not to my taste"),
        ("one refuses", [2, 2, 2], r"calibrate \(process 1 of 3\): the sample is not to my taste"),
        ("one breaks", [2, 1, 2], r"\[rank1\]: RuntimeError: something that nobody foresaw"),
        ("one is killed", [2, 2, -signal.SIGKILL], ENDED),
        ("the first is killed", [-signal.SIGKILL, 2, 2], ENDED),
        ("all refuse", [2, 2, 2], r"calibrate \(process \d of 3\): the sample is not to my taste"),
        ("flags are wrong", [2, 2, 2], r"calibrate \(process \d of 3\): limit must be a positive number"),
    ],
)
def test_processes_end_together_and_the_reason_is_told_once(
    name: str, statuses: list[int], told: str, failures: Path
) -> None:
    assert read(failures, "statuses.json")[name] == statuses
    spoken = "".join(path.read_text(encoding="utf-8") for path in failures.glob(f"{name}.*.err"))
    assert len(re.findall(told, spoken)) == 1
    assert len(re.findall(r"^(?:\[rank\d\]: )?\w*Error\b|lm-eval-ape calibrate", spoken, re.M)) == 1
    if told == ENDED:
        found = re.search(told, spoken)
        assert found
        assert str(statuses.index(-signal.SIGKILL)) in found.groups()
    assert not any(path.read_text(encoding="utf-8") for path in failures.glob(f"{name}.*.out"))


@pytest.mark.slow
def test_the_launcher_ends_the_others_when_one_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(100)\n",
        encoding="utf-8",
    )
    done = launcher.run(launcher.accelerate(2), str(script), check=False)
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stderr


@pytest.mark.slow
def test_connections_are_closed_while_python_still_runs(tmp_path: Path) -> None:
    script = tmp_path / "parting.py"
    script.write_text(
        dedent("""
            import atexit, os, pathlib
            import torch.distributed
            from lm_eval_ape.runtime.processes import join

            said = pathlib.Path(f"{__file__}.{os.environ['RANK']}")
            # What is registered first runs last.
            atexit.register(lambda: said.write_text(f"{found} {torch.distributed.is_initialized()}"))
            found = join().gather("it")
        """),
        encoding="utf-8",
    )
    launcher.run(launcher.torchrun(2), str(script))
    assert [Path(f"{script}.{rank}").read_text() for rank in (0, 1)] == ["['it', 'it'] False"] * 2


def test_shares_are_disjoint_and_together_everything_however_uneven() -> None:
    for count in (1, 2, 3, 7):
        for items in (0, 1, 2, 5, 14):
            shares = [list(Processes(rank, count).own(items)) for rank in range(count)]
            assert sorted(number for share in shares for number in share) == list(range(items))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_single_process_waits_for_nobody() -> None:
    alone = Processes()
    assert alone.gather("found") == ["found"]
    assert alone.put_together([(1, "b"), (0, "a")]) == ["a", "b"]
    assert alone.from_first({"decided": True}) == {"decided": True}
