"""The site in other languages: what stands in cells, where Sphinx does not look, and links from language to language.

Sphinx takes headings, paragraphs, tables and the titles of boxes to the catalogues by itself. Here the words are
added that a cell shows, which are the `alt` of a picture, `tr("...")`, and the line that opens a folded cell. Of the
formulas only those are messages that have words in them.
"""

import ast
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform
from words import LOCALE, tr

NAMES = {"en": "In English", "es": "En español"}
CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?:---\n.*?^---\n|(?::[^\n]*\n)*)(.*?)^```", re.MULTILINE | re.DOTALL
)
FOLDED = {"all": "content", "input": "source", "output": "output"}
WORDS = re.compile(r"\\text\{[^}]* ")


def words_of_cells(page):
    """The literal strings that the cells of a page give to `alt=` and to `tr`, in their order."""
    for cell in CELL.findall(page):
        found = []
        for node in ast.walk(ast.parse(re.sub(r"^[!%]", "#", cell, flags=re.MULTILINE))):
            if isinstance(node, ast.keyword) and node.arg == "alt":
                found.append(node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tr":
                found += node.args
        literal = [node for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        yield from (node.value for node in sorted(literal, key=lambda node: (node.lineno, node.col_offset)))


def lines_of_folded_cells(doctree):
    """(cell, attribute, text) of each line that opens or closes a folded cell."""
    for cell in doctree.findall(nodes.container):
        for attribute in ("prompt_show", "prompt_hide"):
            if attribute in cell:
                yield cell, attribute, cell[attribute].replace("{type}", FOLDED[cell["hide_mode"]])


class KeepFormulas(SphinxTransform):
    """Formulas are not for Sphinx to translate, which would read them as text."""

    default_priority = 5  # before it looks for messages

    def apply(self, **_):
        for formula in self.document.findall(nodes.math_block):
            formula["translatable"] = False


def prepare(app):
    os.environ["BOOK_LANGUAGE"] = app.config.language or "en"  # for the processes in which cells run
    if app.builder.name == "gettext":  # which needs no outputs
        app.config.nb_execution_mode = "off"
        app.config.suppress_warnings = [*app.config.suppress_warnings, "mystnb.glue"]


def add_words(app, doctree):
    folded = list(lines_of_folded_cells(doctree))
    formulas = [formula for formula in doctree.findall(nodes.math_block) if WORDS.search(formula.astext())]
    on_one_line = [" ".join(formula.astext().split()) for formula in formulas]
    if app.builder.name != "gettext":
        for cell, attribute, text in folded:
            cell[attribute] = tr(text)
        for formula, text in zip(formulas, on_one_line, strict=True):
            formula[:] = [nodes.Text(tr(text))]
        return
    path = Path(app.env.doc2path(app.env.docname))
    in_cells = words_of_cells(path.read_text(encoding="utf-8")) if path.suffix == ".md" else ()
    in_folds = (text for _, _, text in folded)
    for text in dict.fromkeys([*in_cells, *in_folds, *on_one_line]):
        message = nodes.paragraph(text, text)
        message.source, message.line, message.uid = str(path), 1, ""
        doctree += message


def link_languages(app, page, template, context, doctree):
    """A link to each translation of a page below its heading, and back, where the sites lie in one another.

    The English site links to what was built inside it before, in OUT/es; that site links to the one around it.
    """
    outdir, up = Path(app.outdir), "../" * page.count("/")
    target = app.builder.get_target_uri(page)
    translated = [path.name for path in LOCALE.glob("*") if (path / "LC_MESSAGES" / f"{page}.po").is_file()]
    links = []
    if app.config.language == outdir.name and outdir.name in translated:
        links.append(("en", f"../{up}{target}"))
    elif app.config.language == "en":
        links += [(name, f"{up}{name}/{target}") for name in sorted(translated) if (outdir / name).is_dir()]
    if links:
        each = (f'<a href="{to}" hreflang="{name}" lang="{name}">{NAMES[name]}</a>' for name, to in links)
        line = f'<p class="languages">{" · ".join(each)}</p>'
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{line}", 1)


def setup(app):
    app.add_transform(KeepFormulas)
    app.connect("builder-inited", prepare, priority=100)  # before MyST-NB reads its settings
    app.connect("doctree-read", add_words)
    app.connect("html-page-context", link_languages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
