"""The examples run, and print what they show."""

from __future__ import annotations

import io
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NUMBER = re.compile(r"\d+\.\d+")


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_shows(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    pictures = 0
    for cell in cells:
        code = "".join(line for line in cell["source"] if not line.startswith("%"))
        exec(compile(code, path.name, "exec"), names)
        shown = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, shown)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.02)
        pictures += sum("image/png" in output.get("data", {}) for output in cell["outputs"])
    assert pictures


def test_a_document_is_read_once_and_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "document.txt"
    document.write_text(
        "Passage 1:\nSigrid\nSigrid earned a living as a novelist. Sigrid was born in Cologne.\n\n"
        "Passage 2:\nCloudburst\nCloudburst is set in Belgrade. Cloudburst was directed by Sigrid.\n\n",
        encoding="utf-8",
    )
    asked = "Where is Cloudburst set?\nWhat was the job of the director of Cloudburst?\n"
    monkeypatch.setattr(sys, "argv", ["serve_document.py", str(document), "--chunk_chars", "100"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(asked))
    runpy.run_path(str(EXAMPLES / "serve_document.py"), run_name="__main__")
    out, err = capsys.readouterr()
    assert out.splitlines() == ["Belgrade", "novelist"]
    assert "tokens in 2 chunks" in err
