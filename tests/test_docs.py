"""What the documentation names is there."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

from lm_eval_ape.harness.arguments import OWN
from lm_eval_ape.settings.strategy import SETTINGS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tasks/**/*.md")])


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


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ((?!C\b)[a-z]+(?:-[a-z]+)*)`", page.read_text(encoding="utf-8")))
    assert named <= targets


def test_the_readmes_table_of_model_arguments_is_what_the_settings_say() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made = runpy.run_path(str(ROOT / "docs" / "model_arguments.py"))
    assert made["updated"](readme) == readme, "run `make readme`"
    rows = [line.split(" | ") for line in made["table"]().splitlines()[2:]]
    named = [name.strip("| `") for row in rows for name in row[0].split(",")]
    assert named == [*SETTINGS, *OWN]
    assert all(len(row) == 3 and all(cell.strip("| ") for cell in row) for row in rows)


def test_the_readmes_python_runs_and_says_what_its_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {})
    right, near, _, wrong, far, _ = capsys.readouterr().out.splitlines()
    assert (right, wrong) == ("Belgrade", "butcher")
    assert ast.literal_eval(near) == pytest.approx([0.0], abs=0.005)
    assert ast.literal_eval(far) == pytest.approx([8.25], abs=0.01)


def test_the_map_of_rooms_is_what_the_rooms_say_of_themselves() -> None:
    """CONTRIBUTING has each room's sentence, word for word."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)/` \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) > 15
    for room, sentence in rows:
        place = ROOT / (room if room.split("/")[0] in ("calibration", "tasks") else f"lm_eval_ape/{room}")
        said = ast.get_docstring(ast.parse((place / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert said.split("\n\n")[0].replace("\n", " ") == sentence
