"""The habits of the house, kept by a machine: sizes, docstrings, words, and which way imports go."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pathopan

PACKAGE = Path(pathopan.__file__).parent
REPOSITORY = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7
MAX_POSITIONAL = 4
MAX_PUBLIC_METHODS = 7

FORBIDDEN_WORDS = {
    "patch": "tile",
    "patches": "tiles",
    "wsi": "slide",
    "bbox": "bounds",
    "magnification": "mpp",
    "stride": "step",
    "hpf": "field",
    "utils": "a name that says what is inside",
    "helper": "a name that says what it does",
    "helpers": "a name that says what is inside",
    "manager": "a name that says what it does",
}
FORBIDDEN_VERBS = ("process_", "handle_", "do_", "maybe_")
TORCH_FREE = ("slide", "tiler", "stitcher", "objects", "scores", "export", "datasets", "metrics", "config", "tables")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_id(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.fixture(params=MODULES, ids=module_id)
def tree(request) -> ast.Module:
    return ast.parse(request.param.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def classes(tree: ast.AST) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def code_lines(function: Function) -> int:
    """Lines with code: no signature, docstring, comment or blank line."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    nodes = [node for statement in body for node in ast.walk(statement) if hasattr(node, "lineno")]
    return len({node.lineno for node in nodes} | {node.end_lineno for node in nodes})


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_modules_stay_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, f"{lines} lines; split it by what it does"


def test_functions_stay_short(tree):
    long = {f.name: code_lines(f) for f in functions(tree) if code_lines(f) > MAX_FUNCTION_LINES}
    assert not long


def test_functions_have_few_parameters_and_name_most_of_them(tree):
    def count(function: Function) -> tuple[int, int]:
        positional = [a for a in function.args.posonlyargs + function.args.args if a.arg not in ("self", "cls")]
        return len(positional), len(positional) + len(function.args.kwonlyargs)

    counts = {f.name: count(f) for f in functions(tree) if not f.decorator_list}
    assert not {name: n for name, (_, n) in counts.items() if n > MAX_PARAMETERS}
    assert not {name: n for name, (n, _) in counts.items() if n > MAX_POSITIONAL and not name.startswith("_")}


def test_classes_stay_small(tree):
    """A frozen dataclass is a value and may have derived values; anything else has few public methods."""
    for node in classes(tree):
        public = [f.name for f in node.body if isinstance(f, Function) and not f.name.startswith("_")]
        frozen = any("frozen=True" in ast.unparse(decorator) for decorator in node.decorator_list)
        assert frozen or len(public) <= MAX_PUBLIC_METHODS, f"{node.name}: {public}"


def test_attributes_are_set_at_birth(tree):
    for node in classes(tree):
        late = [
            f"{node.name}.{target.attr} in {method.name}"
            for method in node.body
            if isinstance(method, Function) and method.name not in ("__init__", "__post_init__", "__setstate__")
            for statement in ast.walk(method)
            if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign)
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
        ]
        assert not late


def test_everything_public_is_explained(tree):
    named = [*functions(tree), *classes(tree)]
    hidden = [*functions(tree), *(c for c in classes(tree) if c.name.startswith("_"))]
    private = {id(inner) for outer in hidden for inner in ast.walk(outer) if inner is not outer}
    bare = [
        node.name
        for node in named
        if not node.name.startswith("_") and id(node) not in private and not ast.get_docstring(node)
    ]
    assert not bare
    assert len(ast.get_docstring(tree) or "") > 10, "the module does not say what it is for"


def test_one_word_per_thing(tree):
    words = {
        f"{name}: say {FORBIDDEN_WORDS[word.lower()]!r}"
        for name in defined_names(tree)
        for word in re.split(r"_|(?<=[a-z])(?=[A-Z])", name)
        if word.lower() in FORBIDDEN_WORDS
    }
    vague = {f.name for f in functions(tree) if f.name.lstrip("_").startswith(FORBIDDEN_VERBS)}
    assert not words | vague


def defined_names(tree: ast.AST) -> set[str]:
    """Names that the module chooses itself: of functions, classes, parameters and variables."""
    chosen = {node.name for node in (*functions(tree), *classes(tree))}
    chosen |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return chosen | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def test_no_drawer_for_odds_and_ends():
    assert not [module_id(path) for path in MODULES if path.stem in FORBIDDEN_WORDS]


def test_rooms_do_not_read_the_environment(tree):
    reads = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) == "os.environ"]
    assert not reads


def test_imports_go_one_way():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_but_the_network_work_without_torch():
    rooms = ", ".join(f"pathopan.{room}" for room in TORCH_FREE)
    script = f"import sys, {rooms}; sys.exit(','.join(m for m in ('torch', 'openvino', 'timm') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert not done.stderr.strip(), done.stderr
