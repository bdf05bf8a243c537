"""Figure 1 of the paper, drawn anew, each box a link to its panel; and the panels.

{figure-1}                         the drawing
{panel} layers.FeedForward         where the class stands, its gradient check, its source: looked up at every build
"""

import inspect
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import minitransformer
from minitransformer.checks import CASES

ROOT = Path(__file__).parents[2]
TEST = "tests/checks/test_cases.py", "test_complex_steps_agree_to_twelve_digits"

# Target, middle, top, width, height, lines of text, kind; in the order in which a sentence passes through.
BOXES = [
    ("embedding", 110, 548, 130, 32, "Input Embedding", "embedding"),
    ("positional-encoding", 40, 507, 68, 36, "Positional|Encoding", "position"),
    ("self-attention", 110, 430, 130, 42, "Multi-Head|Attention", "attention"),
    ("add-and-norm", 110, 392, 130, 30, "Add & Norm", "norm"),
    ("feed-forward", 110, 332, 130, 32, "Feed Forward", "feed"),
    ("add-and-norm", 110, 294, 130, 30, "Add & Norm", "norm"),
    ("encoder-stack", 9, 376, 30, 30, "N×", "stack"),
    ("embedding", 290, 548, 130, 32, "Output Embedding", "embedding"),
    ("positional-encoding", 360, 507, 68, 36, "Positional|Encoding", "position"),
    ("masked-self-attention", 290, 430, 130, 42, "Masked Multi-Head|Attention", "attention"),
    ("add-and-norm", 290, 392, 130, 30, "Add & Norm", "norm"),
    ("cross-attention", 290, 322, 130, 42, "Multi-Head|Attention", "attention"),
    ("add-and-norm", 290, 284, 130, 30, "Add & Norm", "norm"),
    ("feed-forward", 290, 226, 130, 32, "Feed Forward", "feed"),
    ("add-and-norm", 290, 188, 130, 30, "Add & Norm", "norm"),
    ("decoder-stack", 391, 332, 30, 30, "N×", "stack"),
    ("linear", 290, 130, 130, 30, "Linear", "linear"),
    ("softmax", 290, 84, 130, 30, "Softmax", "softmax"),
]

# What is no box: the frames of the two stacks, then lines with an arrow at their end.
FRAMES = [(26, 284, 164, 208), (210, 178, 164, 314)]
ARROWS = [
    *(
        "M110 598V580",
        "M110 548V534",
        "M110 516V472",
        "M74 525H100",
        "M110 430V422",
        "M110 392V364",
        "M110 332V324",
    ),
    *("M110 484H34V407H45", "M110 378H34V309H45", "M94 484V472", "M126 484V472"),
    *(
        "M290 598V580",
        "M290 548V534",
        "M290 516V472",
        "M326 525H300",
        "M290 430V422",
        "M290 392V364",
        "M290 322V314",
    ),
    *("M290 484H366V407H355", "M290 378H366V299H355", "M290 270H366V203H355", "M274 484V472", "M306 484V472"),
    *("M290 284V258", "M290 226V218", "M290 188V160", "M290 130V114", "M290 84V66"),
    *("M110 294V270H200V336H225", "M200 336V350H225"),
]
NOTES = [(110, 612, "Inputs"), (290, 612, "Outputs (shifted right)"), (290, 58, "Output Probabilities")]


def box(target, middle, top, width, height, text, kind):
    lines = text.split("|")
    first = top + height / 2 + 4.5 - 7.5 * (len(lines) - 1)
    label = "".join(
        f'<text x="{middle}" y="{first + 15 * i}">{line.replace("&", "&amp;")}</text>'
        for i, line in enumerate(lines)
    )
    side = "the encoder" if middle < 200 else "the decoder"
    name = f"{text.replace('|', ' ').replace('N×', 'Stack').replace('&', 'and')}, {side}"
    return (
        f'<a href="#{target}" class="{kind}" aria-label="{name}"><rect x="{middle - width / 2}" y="{top}"'
        f' width="{width}" height="{height}" rx="5"/>{label}</a>'
    )


def drawing():
    frames = "".join(
        f'<rect class="frame" x="{x}" y="{y}" width="{w}" height="{h}" rx="10"/>' for x, y, w, h in FRAMES
    )
    arrows = "".join(f'<path d="{path}" marker-end="url(#tip)"/>' for path in ARROWS)
    sums = "".join(
        f'<circle cx="{x}" cy="525" r="9"/><path d="M{x - 5} 525h10M{x} 520v10"/>' for x in (110, 290)
    )
    notes = "".join(f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in NOTES)
    return (
        '<svg class="figure-1" role="group" viewBox="-8 40 416 584" aria-label="The Transformer: encoder on the left,'
        ' decoder on the right, from the inputs at the bottom to the probabilities at the top. Boxes are links.">'
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        f'<path d="M0 0L6 3L0 6z"/></marker></defs>{frames}<g class="lines">{arrows}{sums}</g>{notes}'
        f"{''.join(box(*each) for each in BOXES)}</svg>"
    )


class Figure1(SphinxDirective):
    def run(self):
        return [nodes.raw("", drawing(), format="html")]


class Panel(SphinxDirective):
    required_arguments = 1

    def run(self):
        symbol = self.arguments[0]
        package, _, name = symbol.rpartition(".")
        thing = getattr(getattr(minitransformer, package) if package else minitransformer, name)
        file, test = TEST
        if name not in CASES or f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8"):
            raise ExtensionError(f"{symbol} has no gradient check called {test}")
        source = "minitransformer/" + thing.__module__.partition(".")[2].replace(".", "/") + ".py"
        lines, first = inspect.getsourcelines(thing)
        role = "class" if inspect.isclass(thing) else "func"
        depth = "../" * (self.env.docname.count("/") + 1)
        text = f"""
{{py:{role}}}`{name} <minitransformer.{symbol}>` in `{source}`, lines {first} to {first + len(lines) - 1}.
Gradient check: `minitransformer gradcheck {name}`, or `{file}::{test}[{name}-0]`.

````{{dropdown}} Source of {name}
```{{literalinclude}} {depth}{source}
:pyobject: {name}
:lineno-match:
```
````
"""
        return self.parse_text_to_nodes(text)


def setup(app):
    app.add_directive("figure-1", Figure1)
    app.add_directive("panel", Panel)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
