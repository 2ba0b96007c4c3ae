"""Mutants that no test can tell from the module, by module and changed lines, each with its reason."""

from __future__ import annotations

MERGE, SELECTION = "lm_eval_ape.merge", "lm_eval_ape.selection"
STABILITY, STATISTICS = "lm_eval_ape.calibration.stability", "lm_eval_ape.comparison.statistics"
OTHER_BLOCKS = ("2", "26", "2 ** 27", "2 ** 25", "3 ** 26", "1 ** 26")
MEMORY = "it bounds memory and changes no number"
BOTH = "an interval has both ends or none"
MEASURE_ZERO = "the two differ for a number that is equal to the last bit only"

EQUIVALENT: dict[tuple[str, str], str] = {
    (MERGE, "-        return groups[0]\n+        return groups[-1]"): "of a single group, the first is the last",
    (
        MERGE,
        "-        out = torch.addcmul(out, group.out.to(out.dtype), weight)\n"
        "+        out = torch.addcmul(out, group.out, weight)",
    ): "PyTorch promotes by itself",
    (
        MERGE,
        "-    if not (isinstance(factor, Tensor) and factor.requires_grad):\n+    if not isinstance(factor, Tensor):",
    ): "without a slope both ways to multiply give the same numbers",
    (
        STABILITY,
        "-        return self.width <= STABLE_WIDTH + _ROUNDING\n+        return self.width < STABLE_WIDTH + _ROUNDING",
    ): MEASURE_ZERO,
    (
        STABILITY,
        "-    picks = np.argmax(means <= means.min(axis=1, keepdims=True) + TIE, axis=1)\n"
        "+    picks = np.argmax(means < means.min(axis=1, keepdims=True) + TIE, axis=1)",
    ): MEASURE_ZERO,
    (
        STATISTICS,
        "-        if self.low is None or self.high is None:\n+        if self.low is None and self.high is None:",
    ): BOTH,
    (STATISTICS, "-        if self.low is None or self.high is None:\n+        if self.low is None:"): BOTH,
    **{(SELECTION, f"-BLOCK_ELEMENTS = 2 ** 26\n+BLOCK_ELEMENTS = {other}"): MEMORY for other in OTHER_BLOCKS},
    (STATISTICS, "-_BATCH_VALUES = 10000000\n+_BATCH_VALUES = 10000001"): MEMORY,
    (STATISTICS, "-_BATCH_VALUES = 10000000\n+_BATCH_VALUES = 9999999"): MEMORY,
}


def reason(module: str, diff: str) -> str | None:
    """Why a mutant may survive; None if it may not."""
    return EQUIVALENT.get((module, diff))
