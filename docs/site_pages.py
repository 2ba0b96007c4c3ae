"""What the site shows beside `docs/`: the repository's own pages, and links that lead out of `docs/`.

On the repository's host, pages link to each other and to files by their places in the repository. In the site, the
pages of `PAGES` stand where it says, and a link to any other file is its text alone.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
# Where a file of the repository stands among the site's pages.
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "tasks/README.md": "reference/tasks.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


@event_priority(100)
def on_files(files: Any, config: Any) -> Any:
    """Add the repository's own pages and notebooks, before they are read."""
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        place = notebook.relative_to(ROOT).as_posix()
        files.append(File(place, str(ROOT), config.site_dir, config.use_directory_urls))
    for place, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / place).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links lead to the site's pages."""
    shown = page.file.src_uri
    places = {page: place for place, page in PAGES.items()}
    folder = posixpath.dirname(places.get(shown, f"docs/{shown}"))

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        if "://" in target:
            return match.group(0)
        place = posixpath.normpath(posixpath.join(folder, target))
        there = PAGES.get(place, place.removeprefix("docs/") if place.startswith("docs/") else "")
        if not there:
            return text
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(shown) or '.')}{anchor})"

    return _LINK.sub(link, markdown)
