"""Ctrl-C and SIGTERM: a sentence, the exit status that shells know, and no traceback; the second one ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lm_eval_ape.cli import main

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
SMALL = {"temperatures": "0.6,0.7,0.8,0.9,1.0", "scales": "0.6,0.7,0.8,0.9,1.0", "num_tokens": "4", "limit": "16"}


def wait_for(journal: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not (journal.exists() and b"\n" in journal.read_bytes()):
        time.sleep(0.005)


@contextmanager
def start(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, *command], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_real_process_says_what_is_finished_and_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    model = "pretrained=pocket,chunking=passages,max_chunks=2"
    given = ["--model_args", model, "--tasks", "ape_pocket_twohop_calibration", "--device", "cpu"]
    given += [part for name, value in SMALL.items() for part in (f"--{name}", value)]
    given += ["--output_path", str(folder)]
    with start("-m", "lm_eval_ape", "calibrate", *given) as process:
        wait_for(folder / "cache" / "signals.0.jsonl", process)
        # As long as it is there, another run is told who it is.
        process.send_signal(signal.SIGSTOP)
        assert main(["calibrate", *given]) == 2
        assert f"is being written by another run: process {process.pid} on" in capfd.readouterr().err
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"lm-eval-ape calibrate: stopped by SIGTERM. Finished and kept in {folder}: the teacher")
    assert "divergences" in last
    assert last.endswith(f"To go on: {sys.executable} -m lm_eval_ape calibrate {' '.join(given)}")
    assert not (folder / "calibration.json").exists()
    assert not list(folder.rglob("*.tmp"))


# Computes in C for many minutes, as a model does, where Python looks at no signal.
STUBBORN = """
import hashlib, sys, threading
from lm_eval_ape.runtime.exit_status import exit_status
def work():
    # Said when the computation has long begun.
    threading.Timer(1, print, ["at work"], {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2 * 10**9)
    return 0
sys.exit(exit_status("stubborn", ["stubborn", "a b"], work))
"""


def test_a_second_signal_ends_the_process_at_once_wherever_it_is() -> None:
    with start("-c", STUBBORN) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == ""


def test_an_interruption_before_a_folder_is_held_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lm_eval_ape.cli.paths.main", lambda _: signal.raise_signal(signal.SIGTERM))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert main(["paths", "a b"]) == 143
    told = "lm-eval-ape paths: stopped by SIGTERM. No folder was being written, so nothing is kept. To go on: "
    assert capsys.readouterr().err == f"\n{told}lm-eval-ape paths 'a b'\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_first_of_several_processes_speaks_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lm_eval_ape.cli.paths.main", lambda _: signal.raise_signal(signal.SIGINT))
    monkeypatch.setenv("WORLD_SIZE", "2")
    # It would stay quiet for the tests after this one.
    monkeypatch.setattr("lm_eval_ape.cli.be_quiet_unless_first", lambda: None)
    for rank, words in (("0", "lm-eval-ape paths (in 2 processes, as before)\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert main(["paths"]) == 130
        assert capsys.readouterr().err.endswith(words)


def test_in_a_thread_commands_run_without_it() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(main(["paths"])))
    thread.start()
    thread.join()
    assert found == [0]


# Opens and ends many pools, as the harness does for standard errors by bootstrap.
POOLS = """
import multiprocessing
from lm_eval_ape.runtime.interruption import interruptible
with interruptible():
    for _ in range(30):
        with multiprocessing.get_context("fork").Pool(4) as pool:
            assert pool.map(abs, [-1, 2]) == [1, 2]
print("outlived")
"""

# A process is forked inside of a command, gets a signal while it is in Python, and the command goes on.
FORKED = """
import os, signal, sys, time
from contextlib import ExitStack
from lm_eval_ape.runtime.interruption import interruptible
def died_of(number):
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.write(tell, b"!")
        while True:
            time.sleep(0.001)
    os.read(told, 1)
    os.kill(child, number)
    return signal.Signals(os.WTERMSIG(os.waitpid(child, 0)[1]))
signal.signal(signal.SIGINT, signal.SIG_DFL)
with ExitStack() as contexts:
    for _ in range(int(sys.argv[1])):
        contexts.enter_context(interruptible())
    for _ in range(3):
        print(*(died_of(number).name for number in (signal.SIGTERM, signal.SIGINT)))
print(*(died_of(number).name for number in (signal.SIGTERM, signal.SIGINT)))
"""

# A forked process leaves the command's contexts by itself, and lives longer than the parent's.
OUTLIVING = """
import os, signal, time
from lm_eval_ape.runtime.interruption import interruptible
before = signal.getsignal(signal.SIGTERM)
with interruptible():
    with interruptible():
        child = os.fork()
    inside = signal.getsignal(signal.SIGTERM)
if child:
    print("left")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(inside is not before, signal.getsignal(signal.SIGTERM) is before)
else:
    assert inside is before and signal.set_wakeup_fd(-1) == -1
    time.sleep(60)
"""


# Since 3.12 Python says of every fork beside threads, one of which is the watcher, that it may go wrong.
FORKING = ("-W", "ignore::DeprecationWarning", "-c")


def test_pools_that_are_ended_do_not_end_the_command() -> None:
    with start(*FORKING, POOLS) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "outlived\n", "")


@pytest.mark.parametrize("depth", [1, 2])
def test_a_forked_process_dies_of_its_own_signal_and_the_command_lives(depth: int) -> None:
    with start(*FORKING, FORKED, str(depth)) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "SIGTERM SIGINT\n" * 4, "")


def test_a_forked_process_that_lives_on_does_not_hold_up_the_command() -> None:
    with start(*FORKING, OUTLIVING) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "left\nTrue True\n", "")
