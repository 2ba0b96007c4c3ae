"""Writes the YAML files beside it: `python -m lm_eval_ape.tasks.longbench.generate`.

The catalogue is their only source: change it, not the files. One folder a kind: `full`, `e`
(LongBench-E), `calibration`, `test`, `groups`. A file includes the one it varies.
"""

from pathlib import Path
from typing import Any

import yaml

from lm_eval_ape.tasks.longbench.catalogue import DATASETS, Category, LongBenchDataset
from lm_eval_ape.tasks.longbench.scoring import LENGTH_GROUPS, SECOND_ROUGE, SUBSTRING

FOLDER = Path(__file__).resolve().parent
PREFIX = "ape_longbench"
PACKAGE = "lm_eval_ape.tasks.longbench"
VERSION = 1.1
GROUP_ALIASES: dict[Category, str] = {
    "single": "Single-Document QA",
    "multi": "Multi-Document QA",
    "summarization": "Summarization",
    "fewshot": "Few-shot Learning",
    "synthetic": "Synthetic Tasks",
    "code": "Code Completion",
}
HEADER = "# Written by generate.py from catalogue.py: change these, not this file.\n"


class _Function(str):
    """The dotted name of a function, written with the harness's tag `!function`."""


class _Dumper(yaml.SafeDumper):
    """YAML with one line a string, and its line breaks as escapes."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if "\n" in text else None)


def _function(dumper: yaml.SafeDumper, name: _Function) -> yaml.ScalarNode:
    return dumper.represent_scalar("!function", str(name))


_Dumper.add_representer(str, _string)
_Dumper.add_representer(_Function, _function)


def yaml_files() -> dict[str, str]:
    """Returns every YAML file's text by its path in this folder."""
    configs = {"_base.yaml": _base(), **_groups()}
    for name, dataset in DATASETS.items():
        configs[f"full/{name}.yaml"] = _full(name, dataset)
        configs |= _parts("full", name)
        if dataset.rows_e is not None:
            configs[f"e/{name}_e.yaml"] = _extended(name, dataset)
            configs |= _parts("e", f"{name}_e")
    return {path: _text(config) for path, config in configs.items()}


def _base() -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "custom_dataset": _Function(f"{PACKAGE}.data.load_longbench"),
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_target": "answers",
        "process_results": _Function(f"{PACKAGE}.scoring.process_results"),
        "metric_list": _metrics("score"),
        "metadata": {"version": VERSION},
    }


def _full(name: str, dataset: LongBenchDataset) -> dict[str, Any]:
    config: dict[str, Any] = {
        "include": "../_base.yaml",
        "tag": f"{PREFIX}_tasks",
        "task": f"{PREFIX}_{name}",
        "dataset_kwargs": {"longbench_dataset": name},
        "doc_to_text": dataset.prompt.replace("{", "{{").replace("}", "}}"),
        "generation_kwargs": {
            "max_gen_toks": dataset.max_gen_toks,
            "do_sample": False,
            "temperature": 0.0,
            "until": list(dataset.until),
        },
    }
    if second := _second(dataset):
        config["metric_list"] = _metrics("score", *second)
    return config


def _extended(name: str, dataset: LongBenchDataset) -> dict[str, Any]:
    return {
        "include": f"../full/{name}.yaml",
        "tag": f"{PREFIX}_e_tasks",
        "task": f"{PREFIX}_{name}_e",
        "dataset_kwargs": {"longbench_dataset": f"{name}_e"},
        "metric_list": [*_metrics("score", *_second(dataset)), *_group_metrics()],
    }


def _second(dataset: LongBenchDataset) -> list[str]:
    """What is reported beside the official score."""
    if dataset.metric in SECOND_ROUGE:
        return ["rouge_score_l"]
    return ["sub_em"] if dataset.metric in SUBSTRING else []


def _parts(folder: str, name: str) -> dict[str, dict[str, Any]]:
    infix = "_e" if folder == "e" else ""
    return {
        f"{part}/{name}_{part}.yaml": {
            "include": f"../{folder}/{name}.yaml",
            "tag": f"{PREFIX}{infix}_{part}_tasks",
            "task": f"{PREFIX}_{name}_{part}",
            "dataset_kwargs": {"longbench_dataset": name, "longbench_part": part},
        }
        for part in ("calibration", "test")
    }


def _groups() -> dict[str, dict[str, Any]]:
    configs: dict[str, dict[str, Any]] = {}
    for suffix in ("", "_e"):
        note = " (LongBench-E)" if suffix else ""
        for category, alias in GROUP_ALIASES.items():
            names = [
                f"{PREFIX}_{name}{suffix}"
                for name, dataset in DATASETS.items()
                if dataset.category == category and (not suffix or dataset.rows_e is not None)
            ]
            configs |= _group(f"{PREFIX}_{category}{suffix}", names, alias + note)
        members = [f"{PREFIX}_{category}{suffix}" for category in GROUP_ALIASES]
        configs |= _group(f"{PREFIX}{suffix}", members, f"LongBench{note and '-E'}")
    return configs


def _group(name: str, members: list[str], alias: str) -> dict[str, dict[str, Any]]:
    config = {
        "group": name,
        "group_alias": alias,
        "task": members,
        "aggregate_metric_list": [{"metric": "score", "weight_by_size": False}],
        "metadata": {"version": VERSION},
    }
    return {f"groups/{name}.yaml": config}


def _metrics(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


def _group_metrics() -> list[dict[str, Any]]:
    aggregation = {"aggregation": _Function(f"{PACKAGE}.scoring.mean_of_group")}
    return [metric | aggregation for metric in _metrics(*LENGTH_GROUPS)]


def _text(config: dict[str, Any]) -> str:
    body = yaml.dump(
        config,
        Dumper=_Dumper,
        allow_unicode=True,
        default_flow_style=False,
        sort_keys=False,
        width=10_000,
    )
    return HEADER + body


def main() -> None:
    """Replaces all YAML files in this folder."""
    for path in FOLDER.rglob("*.yaml"):
        path.unlink()
    for name, text in yaml_files().items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
