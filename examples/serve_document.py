"""Answer many questions about one document, which is read once.

    python examples/serve_document.py DOCUMENT [--pretrained MODEL] [--strategy recompute] [--chunk_chars 2000]

Reads questions from standard input, one a line. The document is cut at blank lines into chunks of about `--chunk_chars`
characters, which are encoded apart and kept; each question then costs reading itself and writing its answer (and, with
`recompute`, reading a few tokens of the document again).
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from lm_eval_ape import ParallelModel
from lm_eval_ape.errors import ApeError


def pieces(text: str, length: int) -> list[str]:
    """Paragraphs, joined as long as they fit; nothing is lost between them."""
    found = [""]
    for paragraph in re.split(r"(?<=\n\n)", text):
        if found[-1] and len(found[-1]) + len(paragraph) > length:
            found.append("")
        found[-1] += paragraph
    return found


def main() -> None:
    """Read the document, then answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path, help="a text file")
    parser.add_argument("--pretrained", default="pocket", help="name or folder of a model (default: %(default)s)")
    parser.add_argument("--strategy", default="recompute", help="how it is read (default: %(default)s)")
    parser.add_argument("--prefix", default="The following are given passages.\n", help="text before the document")
    parser.add_argument("--chunk_chars", type=int, default=2000, help="characters of a chunk (default: %(default)s)")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="longest answer (default: %(default)s)")
    args = parser.parse_args()
    if not args.document.is_file():
        parser.error(f"there is no file {args.document}")
    try:
        model = ParallelModel(args.pretrained, strategy=args.strategy)
    except ApeError as error:
        parser.error(str(error))
    chunks = pieces(args.document.read_text(encoding="utf-8"), args.chunk_chars)
    begin = time.perf_counter()
    context = model.encode(prefix=args.prefix, chunks=chunks)
    tokens = sum(map(len, context.prompt.chunks))
    print(f"read {tokens} tokens in {len(chunks)} chunks: {time.perf_counter() - begin:.2f} s", file=sys.stderr)
    for question in filter(None, map(str.strip, sys.stdin)):
        begin = time.perf_counter()
        answer = context.generate(f"\nQuestion: {question}\nAnswer:", max_new_tokens=args.max_new_tokens)
        print(answer.strip().partition("\n")[0], flush=True)
        print(f"{time.perf_counter() - begin:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
