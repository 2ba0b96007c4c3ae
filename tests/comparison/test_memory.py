"""The peak that is measured is that of the work since the beginning."""

from __future__ import annotations

import sys

import pytest
import torch

from lm_eval_ape.comparison.memory import PeakMemory

MIB = 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux resets a process's peak")
def test_an_earlier_peak_does_not_count() -> None:
    torch.ones(400 * MIB, dtype=torch.uint8)
    before = PeakMemory.begin(torch.device("cpu"))
    if not before.own:
        pytest.skip("this kernel does not reset a process's peak")
    start = before.bytes
    torch.ones(100 * MIB, dtype=torch.uint8)
    assert 90 * MIB < before.bytes - start < 200 * MIB
