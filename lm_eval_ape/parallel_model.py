"""The package from Python: read a context in pieces once, and ask it as many questions as you like."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lm_eval_ape.analysis.options import Options as AnalysisOptions
from lm_eval_ape.analysis.run import analyze as run_analysis
from lm_eval_ape.artefacts.analysis import Analysis
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.calibration.document import chosen_arguments
from lm_eval_ape.calibration.grid.scoring import Scorer
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import ask
from lm_eval_ape.calibration.options import Options as CalibrationOptions
from lm_eval_ape.calibration.run import calibrate as run_calibration
from lm_eval_ape.comparison.compare import compare as run_comparison
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.options import Options as ComparisonOptions
from lm_eval_ape.engine import support
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.generating import generating, whole_prompts
from lm_eval_ape.engine.generation_options import check_options, check_own
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.arguments import FROM_PRETRAINED, split_arguments
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.prompts.splitter import token_starts
from lm_eval_ape.runtime.processes import Processes
from lm_eval_ape.settings.strategy import Settings
from lm_eval_ape.storage.loading import loading_told

# What `from_pretrained` takes of the arguments that the harness's class names itself.
_LOADING = FROM_PRETRAINED | {"dtype", "revision", "trust_remote_code", "subfolder", "gguf_file"}
# What a calibration finds.
_FOUND = ("attn_temperature", "attn_scale", "calibration")


class ParallelModel:
    r"""A causal language model that reads contexts in pieces.

    Example:
        >>> from lm_eval_ape import ParallelModel
        >>> model = ParallelModel("pocket", strategy="ape", attn_temperature=0.9)
        >>> passages = ["Passage 1:\nTom Hill lives in Paris.\n", "Passage 2:\nAnn Reed is a doctor.\n"]
        >>> context = model.encode(prefix="Answer from the passages.\n\n", chunks=passages)
        >>> len(context.prompt.chunks)
        2

    Args:
        pretrained: Name or folder of a model, `pocket` for the one that comes with the package, or a loaded model.
        tokenizer: A loaded model's fast tokenizer; of a name, another one than the model's own.
        device: Where a named model goes: `cpu`, `cuda`, ...; by default the CPU.
        **arguments: Model arguments of `ape-hf` that say how contexts are read (`strategy`, `attn_temperature`,
            `positions`, `calibration`, ...); of a name also `dtype` and what else `from_pretrained` takes.

    Raises:
        ApeError: An argument is unknown or impossible, the model cannot be loaded, or it cannot read in pieces.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel,
        tokenizer: Any = None,
        *,
        device: str | None = None,
        **arguments: Any,
    ) -> None:
        settings, rest = split_arguments({"pretrained": pretrained, **arguments})
        source = rest.pop("pretrained")
        if isinstance(source, str):
            if unused := sorted(set(rest) - _LOADING):
                raise ApeError(
                    f"{unused[0]} is an argument of the harness's model, not of ParallelModel: it takes settings of "
                    "ape-hf, device, dtype and what transformers' from_pretrained takes."
                )
            model, own = _load(source, tokenizer is None, rest)
            self.model: PreTrainedModel = model.to(device or "cpu").eval()
            tokenizer = tokenizer or own
        else:
            if unused := sorted(rest):
                raise ApeError(f"{unused[0]} says how a model is loaded, but this one is: drop it.")
            self.model = source
        if not getattr(tokenizer, "is_fast", False):
            raise ApeError(
                f"ParallelModel needs a fast tokenizer, which tells which characters its tokens cover, but got "
                f"{type(tokenizer).__name__}; give one with tokenizer=..."
            )
        self.tokenizer = tokenizer
        self.arguments = {"pretrained": pretrained if isinstance(pretrained, str) else source.name_or_path, **arguments}
        self.processes = Processes()
        support.check(self.model, settings)
        self.engine = Engine(self.model, settings)

    @property
    def settings(self) -> Settings:
        """How contexts are encoded and read."""
        return self.engine.settings

    @contextmanager
    def under(self, settings: Settings) -> Iterator[None]:
        """Encode and read under other settings while the context lasts."""
        before, self.engine = self.engine, self.engine.under(settings)
        try:
            yield
        finally:
            self.engine = before

    def without_kept_chunks(self) -> Any:
        """Read nothing that was encoded before while the context lasts: nothing is kept here in any case."""
        return self.under(self.settings)

    def encode(self, prefix: str = "", chunks: Sequence[str] = ()) -> EncodedContext:
        """Encode a context once.

        Prefix and chunks are tokenised as one text and cut where they meet, so that the tokens are those of the whole
        text; what separates two chunks belongs to one of them.

        Args:
            prefix: What stands before the context: instructions, the header of a chat template.
            chunks: The context's pieces, in order, at least one.

        Raises:
            ApeError: There is no chunk with text.
        """
        parts = [prefix, *chunks]
        if not any(part.strip() for part in chunks):
            raise ApeError("encode needs at least one chunk with text: chunks=[passage, ...].")
        text = "".join(parts)
        bos = self.tokenizer.bos_token
        special = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        encoding = self.tokenizer(text, return_offsets_mapping=True, **special)
        ids, starts = encoding["input_ids"], token_starts(encoding["offset_mapping"])
        borders = [bisect_left(starts, character) for character in accumulate(map(len, parts))]
        pieces = [tuple(ids[first:last]) for first, last in pairwise([*borders[:-1], len(ids)])]
        prompt = Prompt(tuple(ids[: borders[0]]), tuple(filter(None, pieces)), ())
        if not self.settings.parallel:
            prompt = Prompt((), (), prompt.ids)
        return EncodedContext(self, prompt, self.engine.encode_chunks([prompt])[0])

    def harness_model(self, kind: type[ApeHFLM] = ApeHFLM, **settings: Any) -> ApeHFLM:
        """The loaded model as lm-evaluation-harness takes it: `simple_evaluate(model=model.harness_model(), ...)`.

        Args:
            kind: Its class.
            **settings: Settings in place of this model's.
        """
        own = {name: value for name, value in self.arguments.items() if name not in _LOADING | {"pretrained"}}
        given = {"device": str(self.engine.device), **(settings or own)}
        return kind(self.model, tokenizer=self.tokenizer, **given)


@dataclass(frozen=True)
class EncodedContext:
    """A context that was encoded once, to be read by any number of queries.

    Attributes:
        model: What encoded it.
        prompt: Its token ids, without a query.
        encoded: Its keys and values, nothing recomputed: which tokens are may depend on the query.
    """

    model: ParallelModel
    prompt: Prompt
    encoded: EncodedPrompt

    def generate(self, query: str, max_new_tokens: int = 64, **options: Any) -> str:
        """Answer a query, greedily if `options` say nothing else.

        Args:
            query: What follows the context.
            max_new_tokens: Most tokens of the answer.
            **options: Further ones of transformers' `generate` (`do_sample=True`, `temperature=0.7`, ...).

        Raises:
            ApeError: An option is unknown or does not go with a context read in pieces.
        """
        engine, tokenizer = self.model.engine, self.model.tokenizer
        parallel = engine.settings.parallel
        check_own(engine.model.generation_config, parallel=parallel)
        check_options("generate got", options, parallel=parallel, mend="drop it")
        prompt = self._asked(query)
        padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ids, mask = (tensor.to(engine.device) for tensor in whole_prompts([prompt], padding))
        given = {"do_sample": False, "pad_token_id": padding, "max_new_tokens": max_new_tokens, **options}
        with (
            torch.no_grad(),
            engine.autocast(),
            generating(engine, [prompt], [engine.recompute(prompt, self.encoded)], mask) as arguments,
        ):
            rows = engine.model.generate(input_ids=ids, **arguments, **given)
        return str(tokenizer.decode(rows[0, ids.shape[1] :], skip_special_tokens=True))

    @torch.no_grad()
    def loglikelihood(self, query: str, continuations: Sequence[str]) -> list[float]:
        """Log-likelihood of each continuation of a query, in nats, summed over its tokens."""
        prompt = self._asked(query)
        asked, encoded = prompt.query, self.model.engine.recompute(prompt, self.encoded)
        found = []
        for continuation in continuations:
            # As the harness does it: the continuation's tokens are those that the whole text has beyond the query's.
            tokens = self._ids(query + continuation)[len(self._ids(query)) :]
            if not tokens:
                raise ApeError(f"The continuation {continuation!r:.60} has no token of its own.")
            with self.model.engine.tail(encoded) as tail:
                logits = tail.read([*asked, *tokens[:-1]], keep=len(tokens), query=len(asked))
            scores = logits[0].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            found.append(float(scores[torch.arange(len(tokens)), torch.tensor(tokens)].sum()))
        return found

    def divergence(self, query: str, num_tokens: int = 8) -> list[float]:
        """KL of the next-token distributions from the sequential model's, in nats, token by token.

        Both read the sequential model's own greedy tokens after the query.

        Args:
            query: What follows the context.
            num_tokens: How many tokens; fewer where the sequential model ends its answer.
        """
        prompt, settings = self._asked(query), self.model.settings
        scorer = Scorer(self.model, Objective(num_tokens, "teacher", "stop"))
        teacher = ask(self.model, prompt.ids, num_tokens, scorer.ends, "the query")
        point = settings.factors or Point(settings.attn_temperature, settings.attn_scale)
        encoded = self.model.engine.recompute(prompt, self.encoded)
        (score,) = scorer.score(encoded, prompt, teacher, [point], sample="the query")
        return list(score.divergences)

    def _ids(self, text: str) -> list[int]:
        return list(self.model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _asked(self, query: str) -> Prompt:
        ids = self._ids(query)
        if not ids:
            raise ApeError(f"A query must have at least one token, but got {query!r}.")
        return replace(self.prompt, query=(*self.prompt.query, *ids))


class Calibrated(NamedTuple):
    """What a calibration found.

    Attributes:
        chosen: Model arguments that take it up: `ParallelModel("pocket", strategy="ape", **found.chosen)`.
        content: All of `calibration.json`.
    """

    chosen: dict[str, Any]
    content: Calibration


def calibrate(model: ParallelModel | str, tasks: Sequence[str], **options: Any) -> Calibrated:
    """Choose T and S without a label: those closest to the sequential model's next-token distributions.

    Example:
        >>> from lm_eval_ape import ParallelModel, calibrate
        >>> model = ParallelModel("pocket", strategy="ape", chunking="passages", max_chunks=2)
        >>> found = calibrate(model, ["ape_pocket_twohop_calibration"], limit=2, scales=[0.6, 1.0], num_tokens=1)
        >>> sorted(found.chosen)
        ['attn_scale', 'attn_temperature']

    Args:
        model: The model, which need not be loaded again, or its name.
        tasks: Names of harness tasks.
        **options: Flags of `lm-eval-ape calibrate`, such as `limit=32` or `output_path="out/calibration"`.

    Raises:
        ApeError: Something asked for is impossible.
    """
    arguments, lm = _for_harness(model, ApeHFLM, leave_out=_FOUND)
    content = run_calibration(
        CalibrationOptions.read({"model_args": arguments, "tasks": list(tasks), **options}), lm=lm
    )
    return Calibrated(chosen_arguments(content, str(options.get("output_path"))), content)


def compare(model: ParallelModel | str, tasks: Sequence[str], **options: Any) -> Board | None:
    """Run strategies on the same requests and say which differences are real.

    Args:
        model: The model, which need not be loaded again, or its name.
        tasks: Names of harness tasks.
        **options: Flags of `lm-eval-ape compare`; `output_path` is needed.

    Returns:
        The board, as in `board.json`; None on every process but the first.

    Raises:
        ApeError: Something asked for is impossible.
    """
    arguments, lm = _for_harness(model, MeasuredApeHFLM, leave_out=("strategy", *_FOUND))
    return run_comparison(ComparisonOptions.read({"model_args": arguments, "tasks": list(tasks), **options}), lm=lm)


def analyze(model: ParallelModel | str, tasks: Sequence[str], **options: Any) -> Analysis | None:
    """Look at the query's attention under several strategies and numbers of chunks, and how it goes with the score.

    Args:
        model: The model, which need not be loaded again, or its name.
        tasks: Names of harness tasks.
        **options: Flags of `lm-eval-ape analyze`, such as `chunks=[2, 4]`; `output_path` is needed.

    Returns:
        What `analysis.json` holds; None on every process but the first.

    Raises:
        ApeError: Something asked for is impossible.
    """
    arguments, lm = _for_harness(model, MeasuredApeHFLM, leave_out=("strategy", *_FOUND))
    return run_analysis(AnalysisOptions.read({"model_args": arguments, "tasks": list(tasks), **options}), lm=lm)


def _for_harness(model: ParallelModel | str, kind: type[Any], leave_out: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """Model arguments for the commands, and the loaded model if there is one."""
    if isinstance(model, str):
        return {"pretrained": model}, None
    kept = {name: value for name, value in model.arguments.items() if name not in leave_out}
    settings = {name: value for name, value in kept.items() if name not in _LOADING | {"pretrained"}}
    return kept, model.harness_model(kind, **settings)


def _load(name: str, tokenizer: bool, options: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    shared = {
        key: options[key] for key in ("revision", "trust_remote_code", "subfolder", "gguf_file") if key in options
    }
    with loading_told(name):
        model = AutoModelForCausalLM.from_pretrained(name, **{"dtype": "auto", **options})
        own = AutoTokenizer.from_pretrained(name, **shared) if tokenizer else None
    if gguf_file := shared.get("gguf_file"):
        # By its folder alone it could not be distinguished from another one that lies there.
        model.name_or_path = f"{name}/{gguf_file}"
    return model, own
