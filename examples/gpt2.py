"""Continue a prompt with a GPT-2 in NumPy, and print the text as it is written.

    pip install "minitransformer[text]"
    python examples/gpt2.py FOLDER "The meaning of life is" [--length 100] [--temperature 0.8] [--top-k 40] [--seed 0]

FOLDER holds a GPT-2 as it is published: config.json, model.safetensors and tokenizer.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

import minitransformer as mt
from minitransformer.inference.continuation import continuation
from minitransformer.inference.sampling import sampler


def pieces(tokenizer: Any, ids: Iterable[int]) -> Iterator[str]:
    """The text of `ids`, piece by piece. A character of several tokens comes with the last of them."""
    read: list[int] = []
    written = ""
    for i in ids:
        read.append(i)
        text = tokenizer.decode(read)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(written) :]
            written = text


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("folder", type=Path)
    options.add_argument("prompt")
    options.add_argument("--length", type=int, default=100, help="tokens")
    options.add_argument("--temperature", type=float, default=0.8)
    options.add_argument("--top-k", type=int, default=40)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    model, tokenizer = mt.load_published(chosen.folder), mt.load_tokenizer(chosen.folder)
    choose = sampler(np.random.default_rng(chosen.seed), chosen.temperature, chosen.top_k)
    prompt = tokenizer.encode(chosen.prompt).ids
    ids = islice(continuation(model, prompt, choose), chosen.length)
    print(chosen.prompt, end="", flush=True)
    for piece in pieces(tokenizer, takewhile(lambda i: i != model.config.pad_id, ids)):  # its end symbol
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
