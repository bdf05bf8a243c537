"""Small models of the library transformers with random weights, and what they compute: states, gradients, text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minitransformer.published.safetensors import read_safetensors

# a folder for each kind, which make_published.py has written there
GOLDEN = Path(__file__).parents[1] / "golden" / "published"

SIZES = {
    "gpt2": {"vocab_size": 29, "n_positions": 23, "n_embd": 15, "n_layer": 2, "n_head": 3, "n_inner": 17,
             "layer_norm_epsilon": 1e-5, "bos_token_id": 28, "eos_token_id": 28},
    "bert": {"vocab_size": 29, "max_position_embeddings": 23, "hidden_size": 15, "num_hidden_layers": 2,
             "num_attention_heads": 3, "intermediate_size": 17, "type_vocab_size": 2, "pad_token_id": 0,
             "layer_norm_eps": 1e-12},
}  # fmt: skip


def random_model(kind: str, folder: Path, seed: int = 0, **changes: Any) -> Any:
    """A GPT-2 or a BERT with its head for masked words, in float64, which it has written into `folder`."""
    import torch
    import transformers

    Config, Model = {
        "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
        "bert": (transformers.BertConfig, transformers.BertForMaskedLM),
    }[kind]
    torch.manual_seed(seed)
    model = Model(Config(**{**SIZES[kind], **changes})).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(
                0.3 * torch.randn(p.shape)
                + ("norm" in name.lower() or ".ln_" in name) * name.endswith("weight")
            )
    model.save_pretrained(folder)
    return model.double()


def logits_and_gradients(
    model: Any, dlogits: Any, **inputs: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The logits of a model of transformers, and the gradient of Σ dlogits · logits with respect to each parameter."""
    import torch

    model.zero_grad()
    logits = model(**{name: torch.from_numpy(x) for name, x in inputs.items()}).logits
    (torch.from_numpy(dlogits) * logits).sum().backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    return logits.detach().numpy(), gradients


def golden(kind: str) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A small model's folder, its inputs and outputs in transformers, and the gradients by their published names."""
    folder = GOLDEN / kind
    arrays = read_safetensors(folder / "expected.safetensors")
    gradients = {
        name.removeprefix("grad."): arrays.pop(name) for name in list(arrays) if name.startswith("grad.")
    }
    return folder, arrays, gradients


def largest_difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Over all arrays, in parts of the largest number in any of them."""
    assert found.keys() == expected.keys() and all(
        found[name].shape == expected[name].shape for name in found
    )
    largest = max(np.abs(x).max() for x in expected.values())
    return max(np.abs(found[name] - expected[name]).max() for name in found) / largest


def gradients_of(model: Any) -> dict[str, np.ndarray]:
    return {name: p.grad for name, p in model.parameters().items()}
