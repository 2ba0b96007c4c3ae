"""What the documentation names is there."""

from __future__ import annotations

import ast
import io
import re
import runpy
import shlex
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from lm_eval_ape.cli import main
from lm_eval_ape.harness.arguments import OWN
from lm_eval_ape.settings.strategy import SETTINGS
from lm_eval_ape.version import __version__

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tasks/**/*.md")])


# Where each command's work begins, once its words are understood.
WORK = (
    "calibration.run.Calibration",
    "comparison.compare.compare",
    "analysis.run.analyze",
    "report.page.report",
    "artefacts.board_file.read",
    "checkpoints.smollm2.smollm2_file",
    "cli.demo.calibrate",
)
# What makes the work of the pages' commands small.
SMALL = {
    "calibrate": (
        "--limit",
        "2",
        "--num_tokens",
        "1",
        "--resamples",
        "50",
        "--temperatures",
        "1",
        "--scales",
        "0.6,0.8",
    ),
    "compare": ("--limit", "2", "--resamples", "99"),
    "analyze": ("--limit", "2", "--probe_limit", "1"),
}


def of_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_tests_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text(encoding="utf-8"))
    lost = [
        (file, test)
        for file, test in named
        if not (ROOT / file).is_file() or f"def {test}" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert not lost


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("run_configs/**/*.yaml"))], ids=of_page)
def test_python_files_and_modules_that_are_run_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"python ((?:benchmarks|docs|examples|experiments|tests)/[\w/]+\.py)", text)
    assert not [script for script in scripts if not (ROOT / script).is_file()]
    modules = re.findall(r"python -m (lm_eval_ape[\w.]*)", text)
    assert not [module for module in modules if find_spec(module) is None]


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"\bmake ((?!C\b)[a-z]+(?:-[a-z]+)*)`", page.read_text(encoding="utf-8")))
    assert named <= targets()


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=of_page)
def test_workflows_and_forms_are_read_and_call_targets_that_exist(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "workflows":
        steps = [step for job in content["jobs"].values() for step in job["steps"]]
        called = {target for step in steps for target in re.findall(r"make ([a-z-]+)", step.get("run", ""))}
        matrices = [job.get("strategy", {}).get("matrix", {}) for job in content["jobs"].values()]
        assert called | {target for matrix in matrices for target in matrix.get("target", [])} <= targets()
        assert all(step.get("uses") or step.get("run") for step in steps)
        assert all(re.search(r"@(v\d+|release/v\d+)$", step["uses"]) for step in steps if "uses" in step)
        assert content["permissions"] == {"contents": "read"}
        assert content["concurrency"]["group"]
    elif path.name != "config.yml":
        assert {part["type"] for part in content["body"]} == {"textarea"}


def test_continuous_integration_is_the_workflows() -> None:
    called = set(re.findall(r"^make ([a-z-]+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE))
    flows = " ".join(path.read_text(encoding="utf-8") for path in ROOT.glob(".github/workflows/*.yml"))
    assert called == {"check", "test", "test-slow", "docs"}
    assert called <= set(re.findall(r"make ([a-z-]+)", flows))


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__
    assert {"cff-version", "title", "authors", "license", "message"} <= set(cited)
    papers = {reference["url"].rpartition("/")[2] for reference in cited["references"]}
    assert papers == {"2502.05431", "2412.16545", "2212.10947"}


def test_the_references_tables_are_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "reference_pages.py"))
    for name in made["PAGES"]:
        page = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert made["updated"](name) == page, "run `make reference`"
    rows = [line.split(" | ") for line in made["model_arguments"]().splitlines()[2:]]
    named = [name.strip("| `") for row in rows for name in row[0].split(",")]
    assert named == [*SETTINGS, *OWN]
    assert all(len(row) == 3 and all(cell.strip("| ") for cell in row) for row in rows)


def test_every_flag_of_a_command_stands_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for command in ("calibrate", "compare", "analyze", "demo"):
        out = io.StringIO()
        with redirect_stdout(out), pytest.raises(SystemExit):
            main([command, "--help"])
        flags = set(re.findall(r"--[a-z]\w*", out.getvalue().partition("options:")[2].partition("\nexamples")[0]))
        missing = {flag for flag in flags if f"`{flag}" not in page and not flag.startswith("--no")}
        assert missing <= {"--help", "--config", "--dry_run", "--log_samples", "--quiet", "--verbose"}


def snippets(language: str) -> list[Any]:
    """Blocks of code of all pages but those of results, which show what was run at size."""
    found = []
    for page in PAGES:
        if page.name == "CHANGELOG.md" or "results" in page.parts:
            continue
        blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        found += [pytest.param(block, id=f"{of_page(page)}-{number}") for number, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize("snippet", snippets("python"))
def test_python_of_the_pages_runs_and_says_what_its_comments_say(
    snippet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(snippet, "page", "exec"), {})
    said = re.findall(r"# (Belgrade), which is right; then (\w+)|in nats: ([\d.]+), then ([\d.]+)", snippet)
    if said:
        right, near, _, wrong, far, _ = capsys.readouterr().out.splitlines()
        assert (right, wrong) == said[0][:2]
        shown = [float(text) for text in said[1][2:]]
        assert [ast.literal_eval(near)[0], ast.literal_eval(far)[0]] == pytest.approx(shown, abs=0.01)


def commands() -> list[Any]:
    """Commands of ours in the pages, those of results among them, as their words."""
    blocks = [(str(block.id), block.values[0]) for block in snippets("bash")]
    for page in ROOT.glob("docs/results/*.md"):
        indented = re.findall(r"(?:^    .*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
        blocks += [(f"{of_page(page)}-{number}", dedent(block)) for number, block in enumerate(indented)]
    found = []
    for name, block in blocks:
        text = block.replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.startswith("lm-eval-ape ")]
        # What follows `&&` is a command of its own.
        each = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
        ours = [words[1:] for words in each if words[0] == "lm-eval-ape"]
        found += [pytest.param(words, id=f"{name}-{words[0]}-{number}") for number, words in enumerate(ours)]
    return found


@pytest.mark.parametrize("words", commands())
def test_commands_of_the_pages_are_ones_that_can_be_given(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Understood(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise Understood

    for place in WORK:
        monkeypatch.setattr(f"lm_eval_ape.{place}", stop)
    with pytest.raises(Understood):
        import_module(f"lm_eval_ape.cli.{words[0]}").main(words[1:])


@pytest.mark.slow
def test_the_how_tos_commands_run_one_after_the_other_on_the_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a small size; what one writes, another one reads."""
    monkeypatch.chdir(tmp_path)
    given = [param.values[0] for param in commands() if "how-to" in str(param.id)]
    mine = [words for words in given if words[0] in ("report", "card") or "pretrained=pocket" in " ".join(words)]
    mine.sort(key=lambda words: words[0] in ("report", "card"))
    for words in mine:
        small = [*words, *SMALL.get(words[0], ())]
        if "--search" in words:
            small = small[: small.index("--temperatures")]
        if "gradient" in words:
            small = [*small[: small.index("--temperatures")], "--steps", "1", "--folds", "2"]
        assert main(small) == 0, (words, capsys.readouterr().err)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"calibration", "search", "board", "attention"}


def test_the_map_of_rooms_is_what_the_rooms_say_of_themselves() -> None:
    """CONTRIBUTING has each room's sentence, word for word."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)/` \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) > 15
    for room, sentence in rows:
        place = ROOT / (room if room.split("/")[0] in ("calibration", "tasks") else f"lm_eval_ape/{room}")
        said = ast.get_docstring(ast.parse((place / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert said.split("\n\n")[0].replace("\n", " ") == sentence
