"""A journal gives back the records that were written whole, and says in which file others are."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.journal import Journal

RECORDS: list[dict[str, Any]] = [
    {"key": "a", "points": [[0.9, 1.0]], "divergences": [[0.1, 1e-17, 0.30000000000000004]]},
    {"key": "b", "points": ["ä", None], "scores": {"x": [1, -2.5]}},
    {"key": "c", "points": []},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    journal = Journal(tmp_path, "kl", 0)
    for record in RECORDS:
        journal.append(record)
    return tmp_path / "kl.0.jsonl"


def records(file: Path) -> list[dict[str, Any]]:
    return list(Journal(file.parent, "kl", 0).records())


def test_records_come_back_from_all_processes(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    Journal(file.parent, "kl", 1).append({"key": "d"})
    assert records(file) == [*RECORDS, {"key": "d"}]
    assert not caplog.records


def test_no_flipped_bit_is_ever_taken_for_a_record(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, chance = file.read_bytes(), random.Random(0)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << chance.randrange(8)
        file.write_bytes(bytes(changed))
        caplog.clear()
        found = records(file)
        assert len(found) < len(RECORDS)
        assert all(record in RECORDS for record in found)
        # Without its end the last line is as a killed process leaves it, which is no damage.
        assert (str(file) in caplog.text) == (place < len(whole) - 1)


def test_a_record_of_another_version_is_computed_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(file.read_text().replace('"version": 1', '"version": 2', 1), encoding="utf-8")
    assert records(file) == RECORDS[1:]
    assert f"{file}: 1 records are damaged or of another version" in caplog.text


def test_half_a_record_goes_and_the_next_one_takes_its_place(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = file.read_bytes()
    ends = [place + shift for place, sign in enumerate(whole) if sign == ord("\n") for shift in (0, 1)]
    for length in [0, *ends, *random.Random(0).sample(range(len(whole)), 20)]:
        file.write_bytes(whole[:length])
        found = records(file)
        assert found == RECORDS[: whole[:length].count(b"\n")]
        for record in RECORDS[len(found) :]:
            Journal(file.parent, "kl", 0).append(record)
        assert file.read_bytes() == whole
    assert not caplog.records


def test_a_full_disk_leaves_the_records_before_it_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ApeError, match=r"kl\.0\.jsonl cannot be written: No space left on device\. What is finished"):
        Journal(file.parent, "kl", 0).append({"key": "d"})
    assert file.read_bytes() == before


def test_a_record_has_the_bytes_that_its_content_says(file: Path) -> None:
    line = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    assert line["record"] == RECORDS[0]
    assert len(line["checksum"]) == 16
