"""The reference, from the code: signatures and fields as they are written there, docstrings as plain text.

A paragraph of a docstring with an indented line, or with columns (three spaces or more), is a formula and keeps its
lines, as a block. All others are text, in which only `names` between backticks mean something.
"""

import ast
import inspect
import re
import textwrap


def is_formula(paragraph):
    return any(re.search(r"^ |\S {3,}\S", line) for line in paragraph)


def as_text(line):
    pieces = line.split("`")
    pieces[::2] = [re.sub(r"([\\*|_])", r"\\\1", piece) for piece in pieces[::2]]
    return "``".join(pieces)


def as_block(lines, language):
    return [f".. code-block:: {language}", "", *("    " + line for line in lines), ""]


def has_fields(obj):
    """Whether `obj` is a dataclass or a NamedTuple, whose constructor stands nowhere in the code."""
    return inspect.isclass(obj) and bool(vars(obj).keys() & {"__dataclass_fields__", "_fields"})


def parsed(obj):
    """The source of a class or function, and the node of the syntax tree that is it."""
    source = textwrap.dedent(inspect.getsource(obj))
    return source, ast.parse(source).body[0]


def convert_docstring(app, what, name, obj, options, lines):
    paragraphs = [block.split("\n") for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))]
    lines.clear()
    for paragraph in paragraphs:
        lines += as_block(paragraph, "text") if is_formula(paragraph) else [*map(as_text, paragraph), ""]
    if has_fields(obj):
        source, node = parsed(obj)
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
        written = source.split("\n")
        lines += as_block(
            [line for field in fields for line in written[field.lineno - 1 : field.end_lineno]], "python"
        )


def written_signature(app, what, name, obj, options, signature, return_annotation):
    if has_fields(obj):
        return "", ""
    function = getattr(obj, "__init__", None) if what == "class" else getattr(obj, "__func__", obj)
    if not inspect.isfunction(function):
        return None
    _, node = parsed(function)
    if node.args.args and node.args.args[0].arg in ("self", "cls"):
        del node.args.args[0]
    returns = ast.unparse(node.returns) if node.returns and what != "class" else None
    return f"({ast.unparse(node.args)})", returns


def skip_fields(app, what, name, obj, skip, options):
    """Fields are shown as they are written, all at once; what is no method is no member of its own."""
    is_method = callable(obj) or isinstance(obj, (property, classmethod, staticmethod))
    return True if what == "class" and not is_method else None


def setup(app):
    app.connect("autodoc-process-docstring", convert_docstring)
    app.connect("autodoc-process-signature", written_signature)
    app.connect("autodoc-skip-member", skip_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
