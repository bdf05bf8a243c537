"""Rules about the code itself: which way imports point, and where NumPy may be imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import minitransformer

PACKAGE = Path(minitransformer.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own tier and those below. `tasks`, `inference`, `training` and `figures` are one
# tier of the design; among them, too, imports point one way.
TIERS = [
    "errors",
    "backend",
    "kernels",
    "parts",
    "config",
    "validation",
    "module",
    "gradcheck",
    "layers",
    "models",
    "tasks",
    "inference",
    "training",
    "checks",
    "bench",
    "scaling",
    "exercises",
]
TIERS += ["figures", "commands", "cli", "__main__"]
USES_NUMPY = {"backend.py", "training/checkpoint.py"}  # and all of tasks/ and figures/


def imports(path: Path) -> set[str]:
    """Full names of the modules that `path` imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= (
                {node.module}
                if node.module != "minitransformer"
                else {f"minitransformer.{a.name}" for a in node.names}
            )
    return found


def tier(name: str) -> int:
    return TIERS.index(name)


def test_imports_point_one_way() -> None:
    checked = 0
    for path in MODULES:
        relative = path.relative_to(PACKAGE)
        if relative == Path("__init__.py"):
            continue
        own = relative.parts[0].removesuffix(".py")
        for name in imports(path):
            if name.startswith("minitransformer.") and name != "minitransformer.__version__":
                other = name.split(".")[1]
                assert tier(other) <= tier(own), f"{relative} imports {name}"
                checked += 1
    assert checked > 100


def test_gradcheck_knows_module_and_backend_only() -> None:
    used = set().union(*(imports(path) for path in (PACKAGE / "gradcheck").glob("*.py")))
    own = {name.split(".")[1] for name in used if name.startswith("minitransformer.")}
    assert own == {"backend", "errors", "gradcheck", "module"}


def test_numpy_is_imported_only_where_arrays_enter_and_leave() -> None:
    users = {path.relative_to(PACKAGE).as_posix() for path in MODULES if "numpy" in imports(path)}
    strict = {name for name in users if not name.startswith(("tasks/", "figures/"))}
    assert strict <= USES_NUMPY, strict - USES_NUMPY


def test_importing_the_package_imports_no_optional_one() -> None:
    code = (
        "import sys, minitransformer, minitransformer.cli\n"
        "optional = {'cupy', 'matplotlib', 'tqdm', 'hypothesis', 'pytest', 'scipy', 'torch'}\n"
        "optional |= {'sacrebleu', 'sentencepiece', 'mpi4py'}\n"
        "print(sorted(optional & set(sys.modules)))"
    ).replace("\\\n", "\n")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_public_name_has_a_docstring() -> None:
    missing = []
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        missing += [path.name] if ast.get_docstring(tree) is None else []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                is_cache = node.name.endswith("Cache")  # its fields carry comments
                missing += (
                    [f"{path.name}:{node.name}"] if ast.get_docstring(node) is None and not is_cache else []
                )
    assert not missing


def test_every_extra_that_is_named_exists() -> None:
    root = Path(__file__).parents[1]  # the package may be an installed one
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    section = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = ", section, re.MULTILINE))
    pages = [*MODULES, *root.glob("*.md"), *(root / "docs").glob("*.md"), *(root / "tests").rglob("*.py")]
    texts = [project, *(path.read_text(encoding="utf-8") for path in pages)]
    named = {name for text in texts for found in re.findall(r"(?:minitransformer|pip install \"?\.)\[([\w,]+)\]", text)
             for name in found.split(",")}  # fmt: skip
    assert {"app", "cuda12", "cuda13"} <= named <= extras, named - extras
