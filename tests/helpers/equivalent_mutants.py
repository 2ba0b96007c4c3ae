"""Mutants that no test can tell from the module, by module and changed lines, each with its reason."""

from __future__ import annotations

SCORING = "lm_eval_ape.calibration.grid.scoring"
MERGE, SELECTION = "lm_eval_ape.attention.merge", "lm_eval_ape.attention.selection"
STABILITY, STATISTICS = "lm_eval_ape.calibration.grid.stability", "lm_eval_ape.comparison.statistics"
OTHER_BLOCKS = ("2", "26", "2 ** 27", "2 ** 25", "3 ** 26", "1 ** 26")
SPEED = "it saves work whose results nobody reads, or that come out the same"
MEMORY = "it bounds memory and changes no number"
BATCH = "return max(1, _BATCH_VALUES // sum((task.size for task in tasks)))"
OTHER_BATCHES = (
    "return max(2, _BATCH_VALUES // sum((task.size for task in tasks)))",
    "return max(0, _BATCH_VALUES // sum((task.size for task in tasks)))",
    "return max(1, _BATCH_VALUES * sum((task.size for task in tasks)))",
    "return max(1, _BATCH_VALUES)",
)
BLOCK = "block = max(1, BLOCK_ELEMENTS // (batch * heads * keys))"
OTHER_BLOCK_LENGTHS = (
    "block = max(2, BLOCK_ELEMENTS // (batch * heads * keys))",
    "block = max(1, BLOCK_ELEMENTS * (batch * heads * keys))",
    "block = max(1, BLOCK_ELEMENTS)",
    "block = max(1, batch * heads * keys)",
    "block = max(1, BLOCK_ELEMENTS // (batch * heads))",
    "block = max(1, BLOCK_ELEMENTS // keys)",
    "block = max(1, BLOCK_ELEMENTS // (batch * keys))",
    "block = max(1, BLOCK_ELEMENTS // (heads * keys))",
)
BY_BATCH, AT_LEVEL = "batch=_batch(*differences), ", "confidence_level=CONFIDENCE, "
PERMUTED = (
    "stats.permutation_test((terms,), np.sum, permutation_type='samples', axis=-1, n_resamples=resamples, {}"
    "random_state=np.random.default_rng(seed))"
)
RESAMPLED = (
    "stats.bootstrap(differences, macro_mean, axis=-1, n_resamples=resamples, {}method='percentile', {}"
    "random_state=np.random.default_rng(seed)).confidence_interval"
)
TAIL = "with engine.tail(encoded, factors, {}) as tail:"
WANTED, ALIKE = "wanted=wanted", "alike=engine.settings.selection is None"
ASKED = "ids = [*query, *teacher.tokens[:-1]{}]"
ONE_AXIS = "scores of documents have one axis"
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
    **{
        (SCORING, f"-            {TAIL.format(f'{WANTED}, {ALIKE}')}\n+            {TAIL.format(left)}"): SPEED
        for left in (WANTED, ALIKE)
    },
    (SCORING, "-        return len(teacher.query) + 1\n+        return len(teacher.query) + 2"): SPEED,
    (SCORING, "-                break\n+                pass"): SPEED,
    (
        SCORING,
        f"-        {ASKED.format('.tolist()')}\n+        {ASKED.format('')}",
    ): "PyTorch takes a number out of a tensor by itself",
    (
        SCORING,
        "-        rows = zip(torch.stack(found, 1).tolist(), positions.tolist(), strict=True)\n"
        "+        rows = zip(torch.stack(found, 1).tolist(), positions, strict=True)",
    ): "a tensor of one whole number cuts a list as the number does",
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
    (
        SELECTION,
        "-    order = scores.argsort(dim=-1, descending=True, stable=True)\n"
        "+    order = scores.argsort(dim=-1, descending=True, stable=False)",
    ): "on the CPU PyTorch sorts stably anyway",
    (
        SELECTION,
        "-        numbers: list[int] = self.kept.flatten(0, -2).any(0).nonzero()[:, 0].tolist()\n"
        "+        numbers: list[int] = self.kept.flatten(0, -2).any(0).nonzero()[:, 0]",
    ): "who walks through a tensor meets the same numbers",
    (
        SELECTION,
        "-        numbers: list[int] = self.kept.flatten(0, -2).any(0).nonzero()[:, 0].tolist()\n"
        "+        numbers: list[int] = self.kept.flatten(0, -2).any(0).nonzero()[:, -1].tolist()",
    ): "places in a row have one number",
    (
        SELECTION,
        "-        found.append(logits.topk(min(SUMMED, keys), dim=-1).values)\n"
        "+        found.append(logits.topk(min(SUMMED, keys)).values)",
    ): "the last dimension is PyTorch's default",
    (
        SELECTION,
        "-    columns = key.to(dtype).transpose(-1, -2).reshape(groups, 1, kv_heads, 1, width, keys)\n"
        "+    columns = key.to(dtype).transpose(-2, -1).reshape(groups, 1, kv_heads, 1, width, keys)",
    ): "which of two axes comes first does not matter",
    (
        SELECTION,
        "-    lse = lse.masked_fill(lse == -torch.inf, 0.0)[..., None, None]\n"
        "+    lse = lse.masked_fill(lse == -torch.inf, 0.1)[..., None, None]",
    ): "of -inf, any finite number can be taken away",
    **{(SELECTION, f"-    {BLOCK}\n+    {other}"): MEMORY for other in OTHER_BLOCK_LENGTHS},
    **{(SELECTION, f"-BLOCK_ELEMENTS = 2 ** 26\n+BLOCK_ELEMENTS = {other}"): MEMORY for other in OTHER_BLOCKS},
    (
        STATISTICS,
        "-        if self.low is None or self.high is None:\n+        if self.high is None:",
    ): BOTH,
    (STATISTICS, "-_BATCH_VALUES = 10000000\n+_BATCH_VALUES = 10000001"): MEMORY,
    (STATISTICS, "-_BATCH_VALUES = 10000000\n+_BATCH_VALUES = 9999999"): MEMORY,
    **{(STATISTICS, f"-    {BATCH}\n+    {other}"): MEMORY for other in OTHER_BATCHES},
    (STATISTICS, f"-    test = {PERMUTED.format(BY_BATCH)}\n+    test = {PERMUTED.format('')}"): MEMORY,
    (
        STATISTICS,
        f"-        found = {RESAMPLED.format(BY_BATCH, AT_LEVEL)}\n+        found = {RESAMPLED.format('', AT_LEVEL)}",
    ): MEMORY,
    (
        STATISTICS,
        f"-        found = {RESAMPLED.format(BY_BATCH, AT_LEVEL)}\n+        found = {RESAMPLED.format(BY_BATCH, '')}",
    ): "0.95 is scipy's default",
    (
        STATISTICS,
        "-    mean = macro_mean(*scores, axis=-1)\n+    mean = macro_mean(*scores, axis=-0)",
    ): ONE_AXIS,
    (
        STATISTICS,
        "-    mean = float(macro_mean(*differences, axis=-1))\n+    mean = float(macro_mean(*differences, axis=-0))",
    ): ONE_AXIS,
}


def reason(module: str, diff: str) -> str | None:
    """Why a mutant may survive; None if it may not."""
    return EQUIVALENT.get((module, diff))
