"""What holds for the package as a whole: who imports whom, what an import costs, what is public."""

from __future__ import annotations

import ast
import inspect
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import audioset

SOURCE = Path(audioset.__file__).parent
ROOT = Path(__file__).parents[1]
MODULES = sorted(SOURCE.rglob("*.py"))
LAYERS = (
    (
        "arguments",
        "arrays",
        "cache",
        "concurrency",
        "errors",
        "files",
        "folders",
        "text",
        "records",
        "stopping",
    ),
    ("labels",),
    ("calibration",),
    ("assets", "audio"),
    ("frontend",),
    ("networks",),
    ("executors", "weights"),
    ("metrics", "models"),
    ("dataset", "sounds"),
    ("formats",),
    ("runs", "evaluate", "reports"),
    ("train", "search"),
    ("export",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
HEAVY = ("numpy", "openvino", "onnx", "onnxruntime", "h5py", "av", "soundfile", "soxr", "click", "rich", "platformdirs")
NEVER = ("librosa", "pickle", "joblib")
FRAMEWORKS = {
    "torch": ("executors.torch", "executors.torch_frontend", "train", "export"),
    "keras": ("executors.keras", "export.keras", "export.tflite"),
    "tensorflow": ("export.tflite",),
}
IMPORT_IN_PROCESS = """
import json, sys
sockets = []
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)
import audioset
print(json.dumps({"modules": sorted(sys.modules), "sockets": sockets}))
"""


def syntax(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(tree):
    """Dotted names of the modules that a file imports, anywhere in it: also in functions, and from a package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in members if is_module(name)}
            yield from modules
            if modules != members:
                yield node.module


def is_module(name):
    """Whether a dotted name is a module or package of ours."""
    place = SOURCE.parent.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def module_name(path):
    """``formats.rows``, and ``formats`` for its ``__init__.py``."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def internal_imports(path):
    names = {name.removeprefix("audioset.") for name in imported_names(syntax(path)) if name.startswith("audioset.")}
    return {name for name in names if name.split(".")[0] in RANK}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != SOURCE or path.stem != "__init__"], ids=module_name
)
def test_imports_point_one_way(path):
    layer = module_name(path).split(".")[0]
    assert layer in RANK, f"give {layer} a place in LAYERS"
    for name in internal_imports(path):
        assert RANK[name.split(".")[0]] <= RANK[layer], f"{module_name(path)} imports {name}"


def find_circle(graph):
    """Modules that import themselves through others, in order; none if there is no such circle."""
    finished = set()

    def visit(name, trail):
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in finished:
            return []
        found = next(filter(None, (visit(other, [*trail, name]) for other in sorted(graph.get(name, ())))), [])
        finished.add(name)
        return found

    return next(filter(None, (visit(name, []) for name in sorted(graph))), [])


def test_no_module_imports_itself_through_others():
    graph = {module_name(path): internal_imports(path) for path in MODULES if module_name(path)}
    assert find_circle(graph) == []


def test_lazy_imports_and_modules_of_packages_are_seen():
    source = """
import numpy as np
from audioset.export import FORMATS, onnx as onnx_export
from audioset import metrics, __version__

def later():
    from audioset.export.openvino import load
    import audioset.reports.plots
"""
    assert set(imported_names(ast.parse(source))) == {
        *("numpy", "audioset", "audioset.export", "audioset.export.onnx", "audioset.metrics"),
        *("audioset.export.openvino", "audioset.reports.plots"),
    }
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_frameworks_stay_where_they_belong(path):
    imported = {name.split(".")[0] for name in imported_names(syntax(path))}
    assert not imported & set(NEVER)
    for framework in imported & set(FRAMEWORKS):
        assert module_name(path).startswith(FRAMEWORKS[framework]), f"{module_name(path)} imports {framework}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_print_and_no_bare_except(path):
    for node in ast.walk(syntax(path)):
        is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not is_print, f"print in line {node.lineno}"
        is_bare = isinstance(node, ast.ExceptHandler) and node.type is None
        assert not is_bare, f"bare except in line {node.lineno}"


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("test_*.py")), ids=lambda path: path.stem)
def test_every_expected_error_is_matched_by_its_message(path):
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises":
            assert "match" in {keyword.arg for keyword in node.keywords}, f"raises without match in line {node.lineno}"


def test_import_loads_nothing_heavy_and_opens_no_socket():
    process = subprocess.run([sys.executable, "-c", IMPORT_IN_PROCESS], capture_output=True, text=True, check=True)
    answer = json.loads(process.stdout)
    assert not {name.split(".")[0] for name in answer["modules"]} & {*HEAVY, *NEVER, *FRAMEWORKS}
    assert answer["sockets"] == []
    assert process.stderr == ""


@pytest.mark.parametrize("name", audioset.__all__)
def test_public_names_exist_and_are_explained(name):
    value = getattr(audioset, name)
    assert name in dir(audioset)
    if callable(value):
        assert len(inspect.getdoc(value)) > 40


@pytest.mark.parametrize("name", ["Model", "Prediction", "LabelSet", "FrontendSpec", "Event", "Limits", "Ontology"])
def test_public_methods_are_explained(name):
    for attribute, value in vars(getattr(audioset, name)).items():
        if not attribute.startswith("_") and (callable(value) or isinstance(value, (property, classmethod))):
            assert inspect.getdoc(value), f"{name}.{attribute} has no docstring"


def test_names_that_are_not_public():
    with pytest.raises(AttributeError, match="module 'audioset' has no attribute 'vggish'"):
        audioset.vggish  # noqa: B018


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda page: page.stem)
def test_pages_have_names_of_their_own_and_links_that_lead_somewhere(page):
    assert page.stem not in ("genindex", "modindex", "py-modindex", "search"), "Sphinx makes a page of this name"
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_tree_in_the_docs_is_that_of_the_package():
    tree = runpy.run_path(str(ROOT / "tools" / "tree.py"))
    page = tree["PAGE"].read_text(encoding="utf-8")
    assert page == tree["with_tree"](page), "python tools/tree.py writes it anew"
