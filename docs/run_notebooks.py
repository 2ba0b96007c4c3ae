"""Runs the notebooks of `examples/` and keeps what they print and draw (`make notebooks`).

Progress and warnings on stderr are left out, so that a notebook changes only where a result does.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def main() -> None:
    """Run each in a fresh kernel."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        notebook = nbformat.read(path, nbformat.NO_CONVERT)
        NotebookClient(notebook, timeout=600, record_timing=False).execute()
        notebook.metadata = _METADATA
        for number, cell in enumerate(notebook.cells):
            cell.id = str(number)
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        nbformat.write(notebook, path)
        print(f"{path.name}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
