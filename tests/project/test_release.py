"""What a release says of itself is the same everywhere, and a package index can show its README."""

from __future__ import annotations

import re
import runpy
import tomllib
import zipfile
from pathlib import Path

import pytest
import readme
import yaml

import minitransformer

ROOT = Path(readme.__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_citation_is_that_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = PYPROJECT["project"]
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["type"] == "software"
    assert citation["version"] == minitransformer.__version__
    assert citation["title"] == project["name"] and citation["abstract"] == project["description"]
    assert citation["license"] == project["license"] and citation["keywords"] == project["keywords"]
    assert citation["authors"] == project["authors"]
    (paper,) = citation["references"]
    assert paper["title"] == "Attention Is All You Need" and len(paper["authors"]) == 8


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", text, re.MULTILINE)[1] == minitransformer.__version__


def test_the_readme_of_a_package_index_has_no_links_to_files():
    text, hook = readme.TEXT, PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for change in hook["substitutions"]:
        text, n = re.subn(change["pattern"], change["replacement"], text)
        assert n > 0
    assert re.findall(r"\]\((?!https?:)|<img", text) == [] and "docs/images" not in text
    blocks = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    here, there = blocks.findall(readme.TEXT), "\n".join(blocks.findall(text))
    assert there.count('"minitransformer[') == 3  # which are installed from the index
    assert there.replace('"minitransformer[', '".[') == "\n".join(here)


def test_what_a_source_distribution_takes_is_there():
    for name in PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]:
        assert (ROOT / name).exists(), name


def test_the_archive_of_the_site_holds_its_files_and_no_others(tmp_path):
    site = tmp_path / "html"
    for name in (
        "index.html",
        "textbook/04-attention.html",
        "_static/book.css",
        ".doctrees/index.doctree",
        ".buildinfo",
    ):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(name)
    pack = runpy.run_path(str(ROOT / "docs" / "archive.py"))["pack"]
    archive = pack(site, tmp_path / "one")
    top = f"minitransformer-docs-{minitransformer.__version__}"
    assert archive.name == f"{top}.zip"
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == [
            f"{top}/{name}" for name in ("_static/book.css", "index.html", "textbook/04-attention.html")
        ]
        assert packed.read(f"{top}/index.html") == b"index.html"
    assert pack(site, tmp_path / "two").read_bytes() == archive.read_bytes()
    with pytest.raises(SystemExit, match=r"without index\.html"):
        pack(tmp_path / "nowhere", tmp_path)
