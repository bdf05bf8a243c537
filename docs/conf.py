"""How Sphinx builds the site: sphinx-build -W --keep-going -j auto -b html docs docs/_build/html"""

import os
import sys
from pathlib import Path

import minitransformer

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS / "_ext")]
# The chapters run in processes of their own: they import book.py, and use one core each.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(DOCS), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

project = "minitransformer"
author = "The minitransformer authors"
version = release = minitransformer.__version__
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "explain",
    "figure_1",
    "languages",
    "licenses",
    "mathjax_local",
    "repository",
    "widgets",
]
exclude_patterns = ["_build", "textbook/weights"]

# Chapters are run at every build: what they print is what the code of today computes.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # how far a long gradient check is, on a slow machine
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
mathjax3_config = {"options": {"enableMenu": False}}

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True}
maximum_signature_line_length = 88
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = "minitransformer"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d5fa8", "color-brand-content": "#1d5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db4ee", "color-brand-content": "#7db4ee"},
}

# Translations (see CONTRIBUTING.md): `sphinx-build -b gettext` writes a catalogue of each page, those that are
# translated lie in locale/, and `-D language=es` builds with them. _ext/languages.py adds the words of cells.
language = "en"
locale_dirs = ["locale"]
gettext_compact = False
gettext_location = False
