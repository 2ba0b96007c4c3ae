"""What a calibration minimises: the divergence of parallel encoding's next-token distributions from the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

History = Literal["own", "teacher"]
AfterEos = Literal["stop", "continue"]
Positions = Literal["next", "query", "both"]
Signal = Literal["kl", "reverse_kl", "js", "total_variation", "disagreement", "nll"]
Average = Literal["mean", "median", "trimmed_mean"]
HISTORIES: tuple[History, ...] = get_args(History)
SIGNALS: tuple[Signal, ...] = get_args(Signal)
"""What is measured of every distribution, all the smaller the nearer it is to the teacher's (see `divergence`)."""
AVERAGES: tuple[Average, ...] = get_args(Average)
"""How samples are averaged for a choice (see `grid.average`)."""


@dataclass(frozen=True)
class Objective:
    """The mean over some positions of KL(teacher || student) of the next-token distribution there, in nats.

    Attributes:
        num_tokens: K, at least 1.
        history: What the k-th distribution is conditioned on. `own`: teacher and student each continue from their own
            greedy tokens (Eq. 3 of the label-free calibration paper); `teacher`: both read the teacher's.
        after_eos: `stop`: the mean is over the positions that both reach. The position at which a model ends its
            sequence counts (its distribution says how sure the end was), later ones do not exist. `continue`: an
            end-of-sequence token is a token like any other and all K positions count.
        positions: `next`: the K distributions of new tokens. `query`: those after each token of the query, which the
            teacher's pass over the prompt gives anyway; the last of them is that of the first new token. `both`: all of
            these.
    """

    num_tokens: int
    history: str
    after_eos: str
    positions: str = "next"

    @property
    def reads_query(self) -> bool:
        """Whether the distributions after the query's earlier tokens count."""
        return self.positions != "next"
