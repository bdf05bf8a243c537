"""examples/notebook.ipynb: paired with notebook.md, without outputs, and it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

MD = Path(__file__).parents[2] / "examples" / "notebook.md"
IPYNB = MD.with_suffix(".ipynb")
pytestmark = pytest.mark.filterwarnings("default")  # the warnings of Jupyter are not ours


def optional(*packages):
    """These packages, or a skip that says what is missing."""
    reason = "the notebook is checked where {0} is installed (pip install {0})"
    return [pytest.importorskip(name, reason=reason.format(name), exc_type=ImportError) for name in packages]


def test_the_notebook_and_its_text_are_one():
    jupytext, nbformat = optional("jupytext", "nbformat")
    text, notebook = jupytext.read(MD), nbformat.read(IPYNB, as_version=4)
    assert len(text.cells) == len(notebook.cells) > 10
    for of_text, of_notebook in zip(text.cells, notebook.cells, strict=True):
        message = "differs: run  jupytext --to ipynb --update examples/notebook.md"
        for part in ("cell_type", "source", "metadata"):
            assert of_text[part] == of_notebook[part], message
    assert text.metadata["kernelspec"] == notebook.metadata["kernelspec"]
    assert notebook.metadata["jupytext"]["formats"] == "ipynb,md:myst"


def test_the_notebook_holds_no_outputs():
    (nbformat,) = optional("nbformat")
    notebook = nbformat.read(IPYNB, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_the_notebook_runs_and_says_what_it_promises(monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH")  # ipykernel takes the first folder off the path, whatever it is
    nbclient, nbformat, *_ = optional("nbclient", "nbformat", "ipykernel", "matplotlib")
    notebook = nbformat.read(IPYNB, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("text", "") for output in outputs)
    share = re.search(r"([\d.]+)% of 200 sequences are right", said)
    assert share is not None and float(share.group(1)) > 80
    verdicts = re.findall(r"^(\w+): (ok|WRONG)", said, re.MULTILINE)
    assert verdicts == [("FeedForward", "ok"), ("Gate", "ok"), ("ForgetfulGate", "WRONG")]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
