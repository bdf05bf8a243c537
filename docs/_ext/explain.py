"""The pages of `minitransformer explain` on the site: made at every build, from small trained weights.

{explain} translate decoder.layers.0.cross_attention/weights     a link to a page, at one of its boxes and matrices

The text of the link stands below that line.
"""

from pathlib import Path

import numpy as np
import reverser
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import minitransformer as mt

# Name of the page: the task, its weights, the input.
PAGES = {
    "reverse": (reverser.TASK, "reverser.npz", "3 1 4 1 5"),
    "translate": (
        mt.tasks.Translate(),
        "translator-0.npz",
        "the small red house does not fall",
    ),
}


def page(name):
    task, weights, text = PAGES[name]
    model = mt.Transformer(mt.RunSettings.of(task, reverser.SIZES).model)
    with np.load(reverser.WEIGHTS.with_name(weights)) as state:
        model.load_state_dict({key: x.astype("float32") for key, x in state.items()})
    vocabulary = task.vocabulary
    return mt.figures.explain(model, vocabulary.encode(text), symbols=vocabulary.symbols, check=True)


def write_pages(app, exception):
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir, "explain")
    folder.mkdir(exist_ok=True)
    for name in PAGES:
        page(name).save(folder / f"{name}.html")


class Explain(SphinxDirective):
    required_arguments = 1
    optional_arguments = 1
    has_content = True

    def run(self):
        name, *box = self.arguments
        if name not in PAGES:
            raise ExtensionError(f"explain: expected one of {', '.join(PAGES)}, got {name}")
        top = "../" * self.env.docname.count("/")
        address = "".join([f"{top}explain/{name}.html", *(f"#{path}" for path in box)])
        link = nodes.raw("", f'<a href="{address}">', format="html"), nodes.raw("", "</a>", format="html")
        return [nodes.paragraph("", "", link[0], *self.parse_inline(" ".join(self.content))[0], link[1])]


def setup(app):
    app.add_directive("explain", Explain)
    app.connect("build-finished", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
