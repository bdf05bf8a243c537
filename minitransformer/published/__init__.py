"""Models that others have published, from the files in which they publish them.

safetensors.py   the format of the weights
layout.py        a layout: how the names and settings of others map to those of this package
bert.py gpt2.py  the layouts
loading.py       a folder's model and tokenizer
"""

from minitransformer.published.loading import load_published, load_tokenizer

__all__ = ["load_published", "load_tokenizer"]
