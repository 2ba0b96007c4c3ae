"""What a command says while it works: one line, and each warning once."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path

import pytest
import tqdm
import tqdm.std

from lm_eval_ape.cli import main, progress
from lm_eval_ape.display.status_line import Bar, StatusLine

POCKET = ["--model_args", "pretrained=pocket,chunking=passages,max_chunks=2", "--limit", "2"]
CALIBRATE = ["calibrate", *POCKET, "--tasks", "ape_pocket_twohop_calibration", "--num_tokens", "1", "--resamples", "50"]
COMPARE = [
    "compare",
    *POCKET,
    "--tasks",
    "ape_pocket_onehop_test",
    "--strategies",
    "sequential,sink",
    "--kl_tokens",
    "1",
]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_time_left_follows_from_what_has_passed(clock: Clock) -> None:
    line = StatusLine(io.StringIO(), redrawn=True, clock=clock)
    line.part(1, 4, "sequential")
    assert line.text() == "part 1 of 4 · sequential"
    clock.now = 30
    line.bar(Bar("Running", 5, 10, "it"))
    # An eighth took 30 seconds.
    assert line.text() == "part 1 of 4 · sequential · 5 of 10 it · 3:30 left"
    clock.now = 120
    line.part(3, 4, "ape")
    assert line.text() == "part 3 of 4 · ape · 2:00 left"


def test_a_piece_of_work_after_another_is_timed_from_its_own_beginning(clock: Clock) -> None:
    line = StatusLine(io.StringIO(), redrawn=True, clock=clock)
    line.bar(Bar("Sample 1", 0, 10, "points"))
    clock.now = 100
    line.bar(Bar("Sample 1", 10, 10, "points"))
    line.bar(Bar("Fitting", 0, 10, "steps"))
    clock.now = 7300
    line.bar(Bar("Fitting", 5, 10, "steps"))
    assert line.text() == "Fitting · 5 of 10 steps · 2:00:00 left"


def test_a_terminal_has_one_line_and_a_file_one_in_half_a_minute(clock: Clock) -> None:
    drawn, written = io.StringIO(), io.StringIO()
    lines = [StatusLine(drawn, redrawn=True, clock=clock), StatusLine(written, redrawn=False, clock=clock)]
    for line in lines:
        line.title("[bold]of a file\x1b[31m")
    for second in range(1, 91):
        clock.now = second
        for line in lines:
            line.bar(Bar("points", second, 100, "points"))
    for line in lines:
        line.clear()
    assert "\n" not in drawn.getvalue()
    assert drawn.getvalue().endswith("\r\x1b[2K")
    assert len(written.getvalue().splitlines()) == 4
    assert not {"\r", "\x1b"} & set(written.getvalue())
    assert "[bold]of a file" in written.getvalue()


def test_warnings_come_once_at_the_end_with_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(None):
        for _ in range(3):
            logging.getLogger("lm_eval.api.task").warning("a task\nsays")
            warnings.warn("of Python", stacklevel=1)
        logging.getLogger("lm_eval_ape.comparison.running").warning("ours")
        print("chatter of a library")
        assert capsys.readouterr() == ("", "")
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == ["Warning: a task says (3 times)", "Warning: of Python", "Warning: ours"]


def test_warnings_are_shown_when_the_work_breaks_off(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with progress.shown("quiet"):
            logging.getLogger("transformers").warning("before the end")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert capsys.readouterr().err == "Warning: before the end\n"


@pytest.mark.parametrize("display", [None, "quiet", "verbose"])
def test_bars_and_loggers_are_as_before_afterwards(display: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    def now() -> list[object]:
        loggers = [logging.getLogger(name) for name in ("lm_eval_ape", "transformers", "lm_eval_ape.comparison")]
        kept = [(logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
        return [vars(tqdm.std.tqdm)["__init__"], vars(tqdm.std.tqdm)["display"], warnings.showwarning, *kept]

    before = now()
    with progress.shown(display):
        list(tqdm.tqdm(range(3), "Running"))
    assert ("Running: 100%" in capsys.readouterr().err) == (display == "verbose")
    assert now() == before
    list(tqdm.tqdm(range(3), "Running", file=sys.stderr))
    assert "Running: 100%" in capsys.readouterr().err


def test_stdout_has_the_result_and_stderr_a_few_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results = []
    for number, display in enumerate(([], ["--quiet"], ["--verbose"])):
        assert main([*CALIBRATE, *display, "--output_path", str(tmp_path / str(number))]) == 0
        out, err = capfd.readouterr()
        results.append(out)
        assert ("%|" in err) == bool(number == 2)
        assert "\r" not in err or number == 2
    assert results == [results[0]] * 3
    assert results[0].startswith("attn_temperature=")
    assert len(results[0].splitlines()) == 1


def test_a_comparison_names_its_parts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*COMPARE, "--output_path", str(tmp_path)]) == 0
    err = capfd.readouterr().err
    parts = [line for line in err.splitlines() if line.startswith("part ")]
    assert [line.split(" · ")[0] for line in parts] == ["part 1 of 4", "part 2 of 4", "part 4 of 4"]
    assert [line.split(" · ")[1] for line in parts][:2] == ["sequential", "sink"]
    # Nothing that was finished is run again for want of progress.
    assert main([*COMPARE, "--quiet", "--output_path", str(tmp_path)]) == 0
    assert "part " not in capfd.readouterr().err


def test_quiet_and_verbose_exclude_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*COMPARE, "--quiet", "--verbose"])
    assert "not allowed with argument --quiet" in capsys.readouterr().err
