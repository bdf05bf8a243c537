"""Write small published models with random weights, and what the library transformers computes with them.

    PYTHONPATH=.:tests/helpers python tests/golden/make_published.py [DIRECTORY]

Needs transformers. A folder for GPT-2, one for BERT: config.json and model.safetensors as the
library writes them, and expected.safetensors: ids, the gradient of the logits, and, computed in float64, logits, the
gradients by the published names, and (GPT-2) the likeliest continuation.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from published_models import logits_and_gradients, random_model
from safetensors_files import write_safetensors

SMALL = {"gpt2": {"vocab_size": 11, "n_positions": 13, "n_embd": 6, "n_head": 2, "n_inner": 7,
                  "bos_token_id": 10, "eos_token_id": 10},
         "bert": {"vocab_size": 11, "max_position_embeddings": 13, "hidden_size": 6, "num_attention_heads": 2,
                  "intermediate_size": 7}}  # fmt: skip


def inputs(kind: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    if kind == "gpt2":
        return {"input_ids": rng.integers(0, 10, (2, 7))}
    ids = rng.integers(1, 11, (2, 7))
    ids[1, 4:] = 0
    return {
        "input_ids": ids,
        "token_type_ids": rng.integers(0, 2, ids.shape),
        "attention_mask": (ids != 0).astype(int),
    }


def main(directory: Path) -> None:
    import torch

    for kind, sizes in SMALL.items():
        rng, folder = np.random.default_rng(0), directory / kind
        model = random_model(kind, folder, **sizes)
        given = inputs(kind, rng)
        ids = given["input_ids"]
        dlogits = rng.integers(-64, 65, (*ids.shape, 11)) / 64 * (kind == "gpt2" or (ids != 0)[..., None])
        logits, gradients = logits_and_gradients(model, dlogits, **given)
        expected = {**given, "dlogits": dlogits, "logits": logits}
        if kind == "gpt2":
            rows = torch.from_numpy(ids)
            for _ in range(6):
                rows = torch.cat([rows, model(rows).logits[:, -1:].argmax(-1)], 1)
            expected["written"] = rows[:, ids.shape[1] :].numpy()
        write_safetensors(
            folder / "expected.safetensors", expected | {f"grad.{name}": x for name, x in gradients.items()}
        )
        (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "published")
