"""Mutants that no test can tell from the module, by module and changed lines, each with its reason."""

from __future__ import annotations

SCORING = "lm_eval_ape.calibration.scoring"
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
        MERGE,
        "-    weights = torch.exp(lses - lse.masked_fill(lse == -math.inf, 0.0)).unsqueeze(-1)\n"
        "+    weights = torch.exp(lses - lse.masked_fill(lse == -math.inf, 0.1)).unsqueeze(-1)",
    ): "of -inf, any finite number can be taken away",
    (
        MERGE,
        "-        factor = scale.unsqueeze(-1) if isinstance(scale, Tensor) else scale\n"
        "+        factor = scale.unsqueeze(-2) if isinstance(scale, Tensor) else scale",
    ): "S has a last dimension of 1, before and after which another one is the same",
    (
        MERGE,
        "-    return (lse.masked_fill(empty, 0.0) * factor).masked_fill(empty, -math.inf)\n"
        "+    return (lse.masked_fill(empty, 0.1) * factor).masked_fill(empty, -math.inf)",
    ): "what is filled in is filled over",
    (
        SCORING,
        "-        ends = torch.tensor(self.ends, dtype=torch.long, device=device)\n"
        "+        ends = torch.tensor(self.ends, device=device)",
    ): "a list of integers is long, and of an empty one no token is",
    (
        SELECTION,
        "-    dtype = torch.promote_types(query.dtype, torch.float32)\n"
        "+    dtype = torch.promote_types(torch.float32, query.dtype)",
    ): "which of two types comes first does not matter",
    (
        SELECTION,
        "-    order = scores.argsort(dim=-1, descending=True, stable=True)\n"
        "+    order = scores.argsort(descending=True, stable=True)",
    ): "the last dimension is PyTorch's default",
    (
        SELECTION,
        "-    order = scores.argsort(dim=-1, descending=True, stable=True)\n"
        "+    order = scores.argsort(dim=-1, descending=True)",
    ): "on the CPU PyTorch sorts stably anyway",
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
