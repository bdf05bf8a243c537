"""Puts the licences of what others have in the built site into _static/licenses, where docs/licences.md names them."""

import shutil
from importlib.metadata import distribution
from pathlib import Path

# Distributions that put files of theirs into the site. (The licence of MathJax is kept in docs/_static/licenses.)
PACKAGES = (
    "furo",
    "myst-nb",
    "Pygments",
    "Sphinx",
    "sphinx-basic-ng",
    "sphinx-copybutton",
    "sphinx-design",
    "snowballstemmer",
)


def copy_licenses(app, exception):
    if exception or app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "licenses")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(app.srcdir).parent / "LICENSE", target / "minitransformer-LICENSE.txt")
    for package in PACKAGES:
        files = distribution(package).files or []
        found = [file for file in files if "LICENSE" in file.name or file.name == "COPYING"]
        if not found:
            raise FileNotFoundError(f"{package} has no file with its licence")
        for file in found:
            shutil.copy(file.locate(), target / f"{package}-{Path(file.name).stem}.txt")


def setup(app):
    app.connect("build-finished", copy_licenses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
