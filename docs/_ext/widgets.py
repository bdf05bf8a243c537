"""The pages' widgets: what the reader can move is made by _static/widgets.js, with the words that stand on the page.

```{widget} beam
What stands there without JavaScript, and where the page is read as a notebook.

width: width of the beam
```

Each line below the empty one names a text that the widget shows; what is too long for it goes on in the next line,
indented. The texts are paragraphs of the page, and so are translated with it. The widget fills in what
stands in braces.
"""

import re

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

# Name of the widget: the words that it needs.
WIDGETS = {
    "clocks": "title p q together width clocks curve axis result",
    "query": "title plane move words values scale temperature query name allowed key score weight value mixture result",
    "beam": "title table width alpha steps tree kept ended pruned unseen greedy best rank sentence logp penalty score "
    "by-greedy result unfinished",
    "sizes": "title presets family both decoder layers d_model heads d_ff vocabulary batch length parameters share "
    "attention feed-forward embedding rest memory weights gradients adam kept logits looks total indivisible number",
}


class Widget(SphinxDirective):
    required_arguments = 1
    has_content = True

    def run(self):
        name = self.arguments[0]
        if name not in WIDGETS:
            raise self.error(f"widget: expected one of {', '.join(WIDGETS)}, got {name}")
        static, _, words = "\n".join(self.content).partition("\n\n")
        parts = dict(re.findall(r"^([\w-]+): (.+(?:\n  .+)*)", words, re.MULTILINE))
        if wrong := parts.keys() ^ set(WIDGETS[name].split()):
            raise self.error(f"widget {name}: too many words, or too few: {', '.join(sorted(wrong))}")
        shown = self.paragraph(static, ["static"])
        hidden = [self.paragraph(text, ["word", word]) for word, text in parts.items()]
        return [nodes.container("", shown, *hidden, classes=["widget", f"widget-{name}"])]

    def paragraph(self, text, classes):
        text = " ".join(text.split())
        node = nodes.paragraph(text, "", *self.parse_inline(text)[0], classes=classes)
        self.set_source_info(node)
        return node


def add_files(app, pagename, templatename, context, doctree):
    if doctree and any("widget" in node["classes"] for node in doctree.findall(nodes.container)):
        app.add_js_file("widgets.js", loading_method="defer")
        app.add_css_file("widgets.css")


def setup(app):
    app.add_directive("widget", Widget)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
