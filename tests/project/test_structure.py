"""Rules about the code itself: which way imports point, where NumPy may be imported, which tests a file has."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minitransformer

PACKAGE = Path(minitransformer.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms of the package, from the bottom up. A file may import from its own room and from those below, and inside a
# room, too, imports point one way.
ROOMS = [
    "errors",
    "streams",
    "files",
    "backend",
    "system",
    "kernels",
    "parts",
    "gpu_products",
    "products",
    "validation",
    "parameter",
    "memory",
    "module",
    "gradcheck",
    "pytest_plugin",
    "layers",
    "config",
    "one_stack_config",
    "models",
    "training",
    "tasks",
    "inference",
    "published",
    "parallel",
    "checks",
    "testing",
    "runs",
    "exercises",
    "figures",
    "bench",
    "commands",
    "cli",
    "__main__",
]
COMPUTING = ("layers/", "models/", "training/", "inference/")
PROCESSES = {"parallel", "multiprocessing", "mpi4py", "threading", "concurrent", "signal", "socket"}
# Arrays enter and leave here, and in these rooms.
USES_NUMPY = {"backend.py", "system.py", "runs/checkpoint.py"}
USE_NUMPY = ("tasks/", "figures/", "commands/", "testing/", "published/")

TESTS = Path(__file__).parents[1]
# The folders of tests/ that have no room of the package beside them.
ABOUT_THE_WHOLE = {
    "adversarial", "benchmarks", "device", "fixtures", "golden", "helpers", "laws", "project", "textbook"
}  # fmt: skip
# Files of tests in mirrored folders that test no file of the same name, and why.
WITHOUT_A_SOURCE = {
    "runs/test_older_runs.py": "the runs that earlier versions wrote, which lie in fixtures/",
    "gradcheck/test_doors.py": "layers and inputs that nobody expected, through check.py, subject.py and others",
}


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


def own(path: Path) -> set[str]:
    """The rooms that `path` imports from."""
    names = (name for name in imports(path) if name.startswith("minitransformer."))
    return {name.split(".")[1] for name in names} - {"__version__"}


def test_imports_point_one_way() -> None:
    checked = 0
    for path in MODULES:
        relative = path.relative_to(PACKAGE)
        if relative == Path("__init__.py"):
            continue
        floor = ROOMS.index(relative.parts[0].removesuffix(".py"))
        for room in own(path):
            assert ROOMS.index(room) <= floor, f"{relative} imports {room}"
            checked += 1
    assert checked > 100


def test_no_file_of_a_room_imports_itself_through_others() -> None:
    names = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES}
    below = {names[path]: imports(path) & set(names.values()) for path in MODULES if path.stem != "__init__"}
    while leaves := [name for name, found in below.items() if not found & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below, f"these import one another: {sorted(below)}"


def test_gradcheck_knows_modules_and_the_backend_only() -> None:
    used = set().union(*(own(path) for path in (PACKAGE / "gradcheck").glob("*.py")))
    assert used == {"backend", "errors", "gradcheck", "memory", "parameter", "streams"}


def test_the_papers_mathematics_knows_nothing_of_processes_or_of_settings() -> None:
    for path in MODULES:
        relative = path.relative_to(PACKAGE).as_posix()
        packages = {name.split(".")[0] for name in imports(path)} | own(path)
        if relative.startswith(COMPUTING):
            assert not packages & PROCESSES, f"{relative} imports {packages & PROCESSES}"
        if relative.startswith("layers/"):
            assert "config" not in packages, f"{relative} imports config"


def test_numpy_is_imported_only_where_arrays_enter_and_leave() -> None:
    users = {path.relative_to(PACKAGE).as_posix() for path in MODULES if "numpy" in imports(path)}
    strict = {name for name in users if not name.startswith(USE_NUMPY)}
    assert strict <= USES_NUMPY, strict - USES_NUMPY


def test_what_scripts_import_from_the_package_is_there() -> None:
    """Benchmarks and other scripts are run by hand, and so would not notice that a name has moved."""
    root = TESTS.parent
    scripts = [path for folder in (TESTS, root / "examples", root / "docs") for path in folder.rglob("*.py")]
    checked = 0
    for path in scripts:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minitransformer":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    submodule = PACKAGE.parent / f"{node.module.replace('.', '/')}/{alias.name}"
                    there = submodule.is_dir() or submodule.with_suffix(".py").is_file()
                    assert there or hasattr(module, alias.name), f"{path}: {node.module}.{alias.name}"
                    checked += 1
            elif (name := dotted(node)).startswith("mt."):
                found: Any = importlib.import_module("minitransformer")
                for part in name.split(".")[1:]:
                    if isinstance(found, ModuleType | type):  # an instance's attributes are not on its class
                        assert hasattr(found, part), f"{path}: {name}"
                        found = getattr(found, part)
                        checked += 1
    assert checked > 2000


def dotted(node: ast.AST) -> str:
    """The text of a name with dots, such as mt.layers.Linear; "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    inside = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inside}.{node.attr}" if inside else ""


def test_importing_the_package_imports_no_optional_one() -> None:
    code = (
        "import sys, minitransformer, minitransformer.cli\n"
        "optional = {'cupy', 'matplotlib', 'tqdm', 'hypothesis', 'pytest', 'scipy', 'torch'}\n"
        "optional |= {'sacrebleu', 'sentencepiece', 'tokenizers', 'mpi4py'}\n"
        "print(sorted(optional & set(sys.modules)))"
    ).replace("\\\n", "\n")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def loaded_by(code: str) -> set[str]:
    """The modules that a new interpreter has loaded after this code."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_importing_the_gradient_checker_loads_numpy_and_no_model() -> None:
    own_modules = {
        name for name in loaded_by("import minitransformer.gradcheck") if "minitransformer." in name
    }
    rooms = {name.split(".")[1] for name in own_modules}
    assert rooms == {"backend", "errors", "gradcheck", "memory", "parameter", "streams"}


def test_importing_the_package_or_the_plugin_loads_not_even_numpy() -> None:
    for code in ("import minitransformer", "import minitransformer.pytest_plugin"):
        modules = loaded_by(code)
        assert "minitransformer" in modules and "numpy" not in modules


def test_public_names_are_where_the_package_says() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("minitransformer")
        for alias in node.names
    }
    modules = {"figures", "gradcheck", "layers", "models", "tasks"}
    assert typed == set(minitransformer.__all__) == set(minitransformer._PLACES) | modules
    assert set(minitransformer.__all__) <= set(dir(minitransformer))
    assert all(getattr(minitransformer, name) is not None for name in minitransformer.__all__)


@pytest.mark.parametrize("name", ["no_such_name", "__no_such_name__", "__main__"])
def test_a_name_that_is_not_there_is_an_attribute_error(name: str) -> None:
    assert not hasattr(minitransformer, name)


IMPORTS = (
    "import minitransformer as mt; mt.gradcheck",
    "import minitransformer.gradcheck",
    "import minitransformer.checks",
)


@pytest.mark.parametrize("first", IMPORTS)
def test_gradcheck_is_a_function_and_a_package_whatever_is_imported_first(first: str) -> None:
    code = (
        f"{first}\n"
        "import numpy as np\n"
        "import minitransformer as mt\n"
        "import minitransformer.gradcheck as package\n"
        "from minitransformer import gradcheck\n"
        "from minitransformer.gradcheck import gradcheck as function, report\n"
        "layer, x = mt.layers.ReLU(), np.ones(3)\n"
        "reports = [f(layer, x) for f in (mt.gradcheck, package, gradcheck, function)]\n"
        "assert all(r.ok and type(r) is mt.gradcheck.GradcheckReport is report.GradcheckReport for r in reports)\n"
        "import inspect; assert inspect.signature(mt.gradcheck) == inspect.signature(function)"
    )
    assert loaded_by(code)


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


def test_no_docstring_needs_its_neighbour_to_be_understood() -> None:
    """None begins with a reference to something that is not in it."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if text.startswith(("The same", "That of", "Those of", "What ", "It ", "They ")):
                    found.append(f"{path.name}: {text.splitlines()[0]}")
    assert not found, found


def test_every_extra_that_is_named_exists() -> None:
    root = Path(__file__).parents[2]  # the package may be an installed one
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    section = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = ", section, re.MULTILINE))
    pages = [*MODULES, *root.glob("*.md"), *(root / "docs").glob("*.md"), *(root / "tests").rglob("*.py")]
    texts = [project, *(path.read_text(encoding="utf-8") for path in pages)]
    named = {name for text in texts for found in re.findall(r"(?:minitransformer|pip install \"?\.)\[([\w,]+)\]", text)
             for name in found.split(",")}  # fmt: skip
    assert {"app", "cuda12", "cuda13"} <= named <= extras, named - extras


def source_of(test: Path) -> Path:
    """What a file of tests is about: the file of that name, or of a file with its folder's name, the folder itself."""
    *folder, name = test.relative_to(TESTS).parts
    stem = name.removeprefix("test_").removesuffix(".py")
    return PACKAGE.joinpath(*folder, "__init__.py" if folder == [stem] else f"{stem}.py")


def test_every_file_of_tests_has_a_source_file() -> None:
    rooms = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/*.py")}
    files = [
        *TESTS.glob("test_*.py"),
        *(file for room in rooms for file in (TESTS / room).rglob("test_*.py")),
    ]
    alone = {file.relative_to(TESTS).as_posix() for file in files if not source_of(file).is_file()}
    assert len(files) > 70 and alone == set(WITHOUT_A_SOURCE)
    # a folder that has gone may have left its __pycache__ behind
    there = [path.relative_to(TESTS) for path in TESTS.rglob("*.*") if path.parent.name != "__pycache__"]
    folders = {path.parts[0] for path in there if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    assert folders == rooms | ABOUT_THE_WHOLE


def test_the_root_of_the_tests_has_no_helpers() -> None:
    others = {path.name for path in TESTS.glob("*.py") if not path.name.startswith("test_")}
    assert others == {"conftest.py"}
