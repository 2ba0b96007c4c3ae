"""The peak memory of a piece of work."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import NamedTuple

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory(NamedTuple):
    """A measurement that has begun.

    Attributes:
        device: What is measured: the GPUs' allocations, or else the process.
        own: Whether the peak is that of the work since the beginning, not of the whole process so far.
    """

    device: torch.device
    own: bool

    @classmethod
    def begin(cls, device: torch.device) -> PeakMemory:
        """Forget the peak so far, where that is possible."""
        if device.type == "cuda":
            for number in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(number)
            return cls(device, own=True)
        try:
            # Linux: sets the peak of the resident set back to its present size (proc(5)).
            _CLEAR.write_text("5")
            return cls(device, own=_largest_resident() is not None)
        except OSError:
            return cls(device, own=False)

    @property
    def bytes(self) -> int:
        """The peak: `max_memory_allocated` of all GPUs, or the process's largest resident set."""
        if self.device.type == "cuda":
            return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
        if self.own and (kilobytes := _largest_resident()) is not None:
            return kilobytes * 1024
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024


def _largest_resident() -> int | None:
    """The process's largest resident set since the last reset, in kB, as Linux counts it."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) if "VmHWM" in lines else None
