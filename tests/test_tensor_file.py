"""A file of tensors is what was written, or is told to be damaged: whichever byte of it changed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
import torch

from lm_eval_ape.storage import tensor_file
from lm_eval_ape.storage.files import clear_drafts
from lm_eval_ape.storage.tensor_file import DamagedError

TENSORS = {
    "weights": torch.arange(6, dtype=torch.float64).view(2, 3),
    "half": torch.tensor([0.5, -1.0], dtype=torch.bfloat16),
    "step": torch.tensor(3.0),
    "none": torch.zeros(0, 4),
}
NOTES = {"progress": {"step": 3, "recent": [0.1, 0.7]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "state.safetensors"
    tensor_file.write(path, TENSORS, form="test 1", key="abc", notes=NOTES)
    return path


def read(path: Path) -> tensor_file.Content:
    return tensor_file.read(path, form="test 1", key="abc")


def is_what_was_written(found: tensor_file.Content) -> bool:
    same = found.tensors.keys() == TENSORS.keys() and found.notes == NOTES
    return same and all(
        torch.equal(tensor, TENSORS[name]) and tensor.dtype == TENSORS[name].dtype
        for name, tensor in found.tensors.items()
    )


def test_what_is_written_is_read_back_and_the_same_content_is_the_same_bytes(file: Path) -> None:
    assert is_what_was_written(read(file))
    before = file.read_bytes()
    for _ in range(5):
        tensor_file.write(file, TENSORS, form="test 1", key="abc", notes=NOTES)
        assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_process_that_is_killed_while_it_writes_leaves_a_draft_that_is_cleared(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: object, target: Path, **__: object) -> None:
        # As the library does: a file of its own beside the one that it is given.
        (target.parent / ".tmpAbCdEf").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(tensor_file, "save_file", killed)
    child = os.fork()
    if not child:
        tensor_file.write(file, TENSORS, form="test 1", key="abc")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(file.parent.iterdir())) == 2
    clear_drafts(file.parent)
    assert list(file.parent.iterdir()) == [file]
    assert is_what_was_written(read(file))


def test_no_flipped_bit_is_ever_taken_for_the_content(file: Path) -> None:
    whole, chance = file.read_bytes(), random.Random(0)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << chance.randrange(8)
        file.write_bytes(bytes(changed))
        with pytest.raises(DamagedError):
            read(file)


def test_a_file_that_is_cut_off_is_damaged_wherever_it_ends(file: Path) -> None:
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            read(file)


def test_another_version_and_another_key_are_told(file: Path) -> None:
    with pytest.raises(DamagedError, match=r"another kind or version \(test 1, where test 2 is read\)"):
        tensor_file.read(file, form="test 2", key="abc")
    with pytest.raises(DamagedError, match="not written for what is asked for"):
        tensor_file.read(file, form="test 1", key="abd")
    with pytest.raises(FileNotFoundError):
        tensor_file.read(file.with_name("none"), form="test 1", key="abc")


def test_a_checkpoint_of_something_else_is_told(file: Path) -> None:
    from safetensors.torch import save_file

    save_file(TENSORS, file, metadata={"format": "pt"})
    with pytest.raises(DamagedError, match="another kind or version"):
        read(file)
    torch.save(TENSORS, file)
    with pytest.raises(DamagedError):
        read(file)
