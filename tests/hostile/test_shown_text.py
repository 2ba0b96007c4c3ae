"""Text of models, data sets and files is shown as text: in the report, Markdown, CSV and the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from helpers import damage
from helpers.chromium import chromium, needs_chromium
from helpers.undrawn import page
from lm_eval_ape.analysis import tables as analysis_tables
from lm_eval_ape.artefacts.analysis import Analysis
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.cli import main
from lm_eval_ape.comparison import formats
from lm_eval_ape.display import escaping
from lm_eval_ape.report.board_figures import kl_and_score
from lm_eval_ape.report.model_card import card
from lm_eval_ape.report.section import Figures

KINDS = ("board", "calibration", "analysis")
TASK, LABELS = "ape_pocket_twohop_test", ("sequential", "ape", "ape[chunks=2]", "ape[chunks=3]")
# Words that the code itself reads, and digests.
KEPT = {"own", "teacher", "stop", "continue", "model", "layer", "head", "sequential", "pearson", "spearman", "all"}
PLAIN = " plain text"
HOSTILE = (
    "\"'><script>window.hacked=1</script><img src=x onerror=window.hacked=1></textarea></title></style></pre></svg>"
    '<a href=\'javascript:window.hacked=1\'>x</a>" onmouseover="window.hacked=1" {{ 7*7 }}{% raw %}${7*7}<!-- ]]>'
    "\u2028$x^{$ &lt; &#60; `code` | pipe [link](javascript:window.hacked=1) ![i](http://example.org/x) *b* **s**"
    "\r\n\n# heading\n- item [red]rich[/red] \\[bold] \x1b[31m\x1b]0;title\x07\x9b2J\u202e"
)


def planted(content: Any, text: str, key: str = "") -> Any:
    """Content with a text after every string, and after the names of tasks and rows wherever they stand."""
    if isinstance(content, dict):
        return {
            (f"{name}{text}" if name in (TASK, *LABELS) else name): planted(inner, text, name)
            for name, inner in content.items()
        }
    if isinstance(content, list):
        return [planted(inner, text, key) for inner in content]
    kept = key in ("sha256", "weights_sha256", "granularity", "chunking", "strategy") or content in KEPT - set(LABELS)
    return f"{content}{text}" if isinstance(content, str) and not kept else content


class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, and what links and scripts say."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self._script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.links += [str(value) for name, value in attrs if name in ("href", "src", "action", "xlink:href")]
        self._script = tag == "script" and not attrs

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._script = False


def planted_page(text: str) -> str:
    """A report of the valid files with a text planted in them."""
    return page(**{kind: planted(damage.valid(kind), text) for kind in KINDS})


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(planted_page(HOSTILE), encoding="utf-8")
    return path


def test_hostile_text_makes_no_element_no_attribute_no_link_and_no_script(hostile_page: Path) -> None:
    hostile, plain = Structure(hostile_page.read_text(encoding="utf-8")), Structure(planted_page(PLAIN))
    assert hostile.elements == plain.elements
    assert hostile.links == plain.links
    assert hostile.scripts == plain.scripts
    assert len(hostile.scripts) == 1


def test_a_figure_of_hostile_names_is_whole_xml_with_the_elements_of_any_figure(tmp_path: Path) -> None:
    def elements(text: str) -> set[str]:
        board = planted(damage.valid("board"), text)
        drawn = Figures(tmp_path).add(
            "f", kl_and_score(Board.model_validate(board), list(board["tasks"])), alt="", caption=""
        )
        ElementTree.parse(tmp_path / "figures" / "f.svg")
        return {tag for tag, _ in Structure(str(drawn.svg)).elements}

    assert elements(HOSTILE) <= elements(PLAIN) | {"tspan"}


@needs_chromium
def test_in_a_browser_nothing_of_it_runs_and_all_of_it_can_be_read(hostile_page: Path) -> None:
    with chromium(hostile_page) as browser:
        everything = """
            document.querySelectorAll('details').forEach(part => { part.open = true; });
            document.querySelectorAll('*').forEach(part => {
                ['mouseover', 'focus', 'error', 'load'].forEach(name => part.dispatchEvent(new Event(name)));
            });
        """
        browser.execute_script(everything)
        # Samples are drawn when they are opened.
        browser.execute_async_script("setTimeout(arguments[0], 200)")
        browser.execute_script(everything)
        assert browser.execute_script("return window.hacked") is None
        assert browser.execute_script("return document.querySelectorAll('img, a[href^=javascript]').length") == 0
        assert browser.execute_script("return document.querySelectorAll('script:not([type])').length") == 1
        said = browser.find_element("css selector", ".opened .said").get_property("textContent")
        assert "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>" in said
        errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert errors == []


def markdowns(text: str) -> Mapping[str, str]:
    contents = {kind: planted(damage.valid(kind), text) for kind in KINDS}
    return {
        "board": formats.markdown(Board.model_validate(contents["board"])),
        "analysis": analysis_tables.markdown(Analysis.model_validate(contents["analysis"])),
        "card": card(Calibration.model_validate(contents["calibration"])),
    }


@pytest.mark.parametrize("name", ["board", "analysis", "card"])
def test_markdown_is_the_same_blocks_and_cells_whatever_the_text(name: str) -> None:
    parser = MarkdownIt("commonmark").enable("table")

    def blocks(text: str) -> list[str]:
        return [token.type for token in parser.parse(text)]

    def inline(text: str) -> set[str]:
        return {child.type for token in parser.parse(text) for child in token.children or ()}

    hostile, plain = markdowns(HOSTILE)[name], markdowns(PLAIN)[name]
    assert blocks(hostile) == blocks(plain)
    # No HTML, no link that was none, no picture.
    assert inline(hostile) <= inline(plain) | {"code_inline"}
    assert not {"\x1b", "\x9b", "\x07", "\u202e", "\u2028"} & set(hostile)


@given(text=st.text(max_size=60))
def test_any_text_is_one_plain_cell_of_markdown(text: str) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    for cell in (escaping.markdown(f"x{text}x"), escaping.code(f"x{text}x")):
        tokens = parser.parse(f"| a | b |\n|---|---|\n| {cell} | y |\n")
        cells = [token for token in tokens if token.type == "td_open"]
        assert len(cells) == 2
        children = {child.type for token in tokens for child in token.children or ()}
        assert children <= {"text", "text_special", "code_inline", "em_open", "em_close"}


def scores_alone() -> dict[str, Any]:
    """A board whose rows can be renamed, as nothing else names them."""
    nothing: dict[str, Any] = {"tasks": [], "buckets": [], "rows": {}}
    return {**damage.valid("board"), "lengths": {"unit": "tokens", **nothing}, "samples": {}}


def test_a_cell_of_a_csv_is_no_formula() -> None:
    board = scores_alone()
    for start in ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1"):
        board["rows"][1]["label"], board["rows"][1]["model"] = start, start
        board["rows"][1]["tasks"][TASK]["score"] = -0.5
        lines = csv.DictReader(io.StringIO(formats.comma_separated(Board.model_validate(board)), newline=""))
        (found,) = [line for line in lines if line["strategy"] == f"'{start}" and line["task"] == TASK]
        assert found["model"] == f"'{start}"
        # A number below zero stays one.
        assert float(found["score"]) == -0.5


def test_a_control_character_makes_no_line_of_a_csv() -> None:
    board = scores_alone()
    board["rows"][1]["label"] = "a\rb\nc\x1b[2J"
    lines = list(csv.DictReader(io.StringIO(formats.comma_separated(Board.model_validate(board)), newline="")))
    assert {line["strategy"] for line in lines} == {"sequential", "a\\rb\nc\\x1b[2J"}


@pytest.mark.parametrize("kind", ["board", "analysis"])
def test_the_terminal_shows_markup_and_escape_sequences_as_text(kind: str) -> None:
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=True, width=4000, color_system="truecolor", highlight=False)
    content = planted(damage.valid(kind), HOSTILE)
    if kind == "board":
        formats.show(Board.model_validate(content), console)
    else:
        analysis_tables.show(Analysis.model_validate(content), console)
    shown = buffer.getvalue()
    assert "[red]rich[/red]" in shown
    assert r"\[bold]" in shown
    assert "\\x1b[31m" in shown
    assert not {"\x07", "\x9b", "\u202e"} & set(shown)
    # Rich styles the tables with sequences of its own; none of those is ours.
    assert "\x1b[31m" not in shown
    assert "\x1b]0;" not in shown


def test_an_error_shows_what_a_file_says_as_one_line_of_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = {**damage.valid("board"), "baseline": HOSTILE, "notes": []}
    board["rows"][0]["tasks"]["\x1b[2J\nname"] = 5
    (tmp_path / "board.json").write_text(json.dumps(board), encoding="utf-8")
    assert main(["report", str(tmp_path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "\\x1b[2J name must be object, but is 5" in told[1]
