"""The tasks through lm-evaluation-harness: found, loaded, prompted, scored, aggregated."""

from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.tasks import TaskManager

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks import TASKS_DIR
from lm_eval_ape.tasks.longbench.catalogue import DATASETS

NAMES = [*DATASETS, *(f"{name}_e" for name in DATASETS if DATASETS[name].rows_e)]
TASKS = [f"ape_longbench_{name}{part}" for name in NAMES for part in ("", "_calibration", "_test")]
CATEGORIES = ["single", "multi", "summarization", "fewshot", "synthetic", "code"]


def manager(folder: Path) -> TaskManager:
    return TaskManager(
        include_path=str(TASKS_DIR / "longbench"),
        include_defaults=False,
        metadata={"longbench_dir": str(folder), "pretrained": "some/model"},
    )


def check(task: Any, name: str, prediction: int = -1) -> None:
    """Two requests have the official prompt, and their planted predictions a perfect score."""
    dataset = DATASETS[name.removesuffix("_e")]
    task.build_all_requests(limit=2)
    assert len(task.instances) == 2
    for instance in task.instances:
        prompt, generation = instance.args
        doc = instance.doc
        assert prompt == dataset.prompt.format(context=doc["context"], input=doc["input"])
        assert prompt.count(doc["context"]) == 1
        assert generation["max_gen_toks"] == dataset.max_gen_toks
        assert generation["do_sample"] is False
        assert generation["until"] == (["\n"] if "samsum" in name else [])
        scores = task.process_results(doc, [doc["answers"][prediction]])
        assert scores["score"] == pytest.approx(1.0, abs=1e-6)
        assert set(scores) <= set(task.aggregation()) == set(task.higher_is_better())


def test_the_index_holds_every_task_group_and_tag() -> None:
    found = TaskManager(include_path=str(TASKS_DIR / "longbench"), include_defaults=False)
    groups = ["ape_longbench", *(f"ape_longbench_{category}" for category in CATEGORIES)]
    assert found.all_subtasks == sorted(TASKS)
    assert found.all_groups == sorted([*groups, *(f"{group}_e" for group in groups)])
    assert found.all_tags == sorted(
        f"ape_longbench{infix}{part}_tasks" for infix in ("", "_e") for part in ("", "_calibration", "_test")
    )


def test_names_and_tags_are_none_of_the_harness() -> None:
    own = TaskManager(include_path=str(TASKS_DIR / "longbench"), include_defaults=False)
    theirs = Path(lm_eval.__file__).parent / "tasks" / "longbench"
    builtin = TaskManager(include_path=str(theirs), include_defaults=False)
    assert builtin.all_tasks
    assert not set(own.all_tasks) & set(builtin.all_tasks)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_and_its_parts_load_prompt_and_score(name: str, small_longbench: Path) -> None:
    tasks = manager(small_longbench)
    for part, rows in (("", 40), ("_calibration", 32), ("_test", 8)):
        task = tasks.load(f"ape_longbench_{name}{part}")["tasks"][f"ape_longbench_{name}{part}"]
        assert len(task.eval_docs) == rows
        check(task, name)


@pytest.mark.parametrize("name", DATASETS)
def test_official_rows_load_prompt_and_score(name: str, longbench_dir: Path) -> None:
    if not (longbench_dir / f"{name}.jsonl").is_file():
        pytest.skip(f"{longbench_dir} has no {name}.jsonl")
    task = manager(longbench_dir).load(f"ape_longbench_{name}")["tasks"][f"ape_longbench_{name}"]
    check(task, name, prediction=0)


@pytest.mark.parametrize("suffix", ["", "_e"])
def test_the_whole_benchmark_is_evaluated_and_aggregated(suffix: str, small_longbench: Path) -> None:
    results = lm_eval.simple_evaluate(
        model="dummy",
        tasks=[f"ape_longbench{suffix}"],
        task_manager=manager(small_longbench),
        limit=4,
        bootstrap_iters=0,
    )
    names = [f"ape_longbench_{name}" for name in NAMES if name.endswith("_e") == bool(suffix)]
    scores = {name: results["results"][name]["score,none"] for name in names}
    code = [scores[f"ape_longbench_{name}{suffix}"] for name in ("lcc", "repobench-p")]
    assert {name for name, score in scores.items() if score} == {
        f"ape_longbench_lcc{suffix}",  # the dummy model's "lol" is a little like the answers
        f"ape_longbench_repobench-p{suffix}",
    }
    group = results["results"][f"ape_longbench_code{suffix}"]
    assert group["score,none"] == pytest.approx(sum(code) / 2)
    whole = results["results"][f"ape_longbench{suffix}"]
    assert whole["score,none"] == pytest.approx(sum(scores.values()) / len(scores))
    if suffix:
        by_length = results["results"]["ape_longbench_lcc_e"]
        groups = [by_length[f"score_{group},none"] for group in ("0_4k", "4_8k", "8k_up")]
        assert by_length["score,none"] == pytest.approx((2 * groups[0] + groups[1] + groups[2]) / 4)
    config = results["configs"][names[0]]
    assert config["metadata"]["longbench_dir"] == str(small_longbench)


def test_the_number_of_shots_cannot_be_changed(small_longbench: Path) -> None:
    results = lm_eval.simple_evaluate(
        model="dummy",
        tasks=["ape_longbench_2wikimqa"],
        task_manager=manager(small_longbench),
        num_fewshot=3,
        limit=1,
        bootstrap_iters=0,
    )
    assert results["n-shot"]["ape_longbench_2wikimqa"] == 0


def test_the_folder_is_taken_from_the_metadata_of_a_run_configuration(tmp_path: Path, small_longbench: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: dummy\ntasks: [ape_longbench_lcc]\nmetadata:\n  longbench_dir: {small_longbench}\n",
        encoding="utf-8",
    )
    run = EvaluatorConfig.from_config(path)
    tasks = TaskManager(include_path=str(TASKS_DIR / "longbench"), include_defaults=False, metadata=run.metadata)
    assert len(tasks.load("ape_longbench_lcc")["tasks"]["ape_longbench_lcc"].eval_docs) == 40


def test_a_missing_folder_stops_the_run_before_any_request(tmp_path: Path) -> None:
    with pytest.raises(ApeError, match=r"data folder .*nowhere does not exist"):
        manager(tmp_path / "nowhere").load("ape_longbench")
