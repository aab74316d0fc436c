"""docs/architecture.md tells the truth: which room imports which; and files and functions stay small.

The rooms and their arrows are read from the document, so a new arrow is drawn there before it is written.
"""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGES = ("modeling_hiera_mae", "dataset_scripts", "medhiera")
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

Drawing = dict[str, set[str]]
"""A room's name → the rooms that it may import."""


def read_drawing(text: str) -> Drawing:
    """The ```arrows block of the document, one `room -> room, room` a line."""
    [block] = re.findall(r"^```arrows\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    drawing: Drawing = {}
    for line in block.splitlines():
        room, _, imported = line.partition("->")
        assert room.strip() not in drawing, f"two lines for {room}"
        drawing[room.strip()] = {name.strip() for name in imported.split(",") if name.strip()}
    unknown = set().union(*drawing.values()) - drawing.keys()
    assert not unknown, f"rooms without a line of their own: {unknown}"
    return drawing


def find_sources(root: Path) -> dict[str, Path]:
    """Our files by module name; a script's is `scripts.NAME`, a package's own file is `PACKAGE.__init__`."""
    found = {f"scripts.{path.stem}": path for path in sorted(root.glob("*.py"))}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            found[".".join(path.relative_to(root).with_suffix("").parts)] = path
    return found


def imported_names(node: ast.AST, module: str) -> list[str]:
    """The full names that a statement imports: `from a import b` is `a.b`; empty for any other statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = module.split(".")[: -node.level] if node.level else []
    source = [*package, *([node.module] if node.module else [])]
    return [".".join([*source, alias.name]) for alias in node.names]


def find_imports(sources: dict[str, Path]) -> Iterator[tuple[str, str, int]]:
    """(module, imported module, line) for each import of ours: nested ones and TYPE_CHECKING's too."""

    def resolve(name: str) -> str | None:
        """The module that a name stands in; None where it is not ours."""
        while name:
            for module in (name, f"{name}.__init__", f"scripts.{name}"):
                if module in sources:
                    return module
            name = name.rpartition(".")[0]
        return None

    for module, path in sources.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in imported_names(node, module):
                if (imported := resolve(name)) is not None:
                    yield module, imported, node.lineno


def room_of(module: str, rooms: Iterable[str]) -> str:
    """The room with the longest name that the module's begins with; the module itself where none is drawn."""
    return max((room for room in rooms if f"{module}.".startswith(f"{room}.")), key=len, default=module)


def compare_with_drawing(root: Path, drawing: Drawing) -> list[str]:
    """One sentence for each import that is not drawn, and for each arrow that no import uses."""
    sources = find_sources(root)
    faults: set[str] = set()
    used: set[tuple[str, str]] = set()
    for module, imported, line in find_imports(sources):
        room, other = room_of(module, drawing), room_of(imported, drawing)
        used.add((room, other))
        if room != other and other not in drawing.get(room, ()):
            place = f"{sources[module].relative_to(root)}:{line}"
            faults.add(f"{place}: {room} -> {other} is not drawn (it imports {imported})")
    drawn = {(room, other) for room, others in drawing.items() for other in others}
    faults |= {f"{room} -> {other} is drawn, and nothing uses it" for room, other in drawn - used}
    return sorted(faults)


def test_the_rooms_import_each_other_as_drawn(root):
    drawing = read_drawing((root / "docs" / "architecture.md").read_text(encoding="utf-8"))
    faults = compare_with_drawing(root, drawing)
    assert not faults, "\n".join(["docs/architecture.md does not agree:", *faults])


def test_the_drawing_has_no_circle(root):
    drawing = read_drawing((root / "docs" / "architecture.md").read_text(encoding="utf-8"))
    list(TopologicalSorter(drawing).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    "statement",
    [
        "from medhiera.training import model",
        "from medhiera.training.model import start",
        "import medhiera.training.model",
        "from ..training import model",
        "from ..training.model import start",
        "def late():\n    from medhiera.training import model",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from medhiera.training import model",
    ],
)
def test_an_import_that_is_not_drawn_is_found(statement, tmp_path):
    for room in ("data", "training"):
        (tmp_path / "medhiera" / room).mkdir(parents=True)
        (tmp_path / "medhiera" / room / "__init__.py").touch()
    (tmp_path / "medhiera" / "training" / "model.py").write_text("from medhiera.data import dataset\n")
    (tmp_path / "medhiera" / "data" / "dataset.py").write_text(f"import json\n{statement}\n")
    drawing = read_drawing("```arrows\nmedhiera.data ->\nmedhiera.training -> medhiera.data\n```\n")
    [fault] = compare_with_drawing(tmp_path, drawing)
    line = 2 + statement.count("\n")
    assert fault.startswith(
        f"medhiera/data/dataset.py:{line}: medhiera.data -> medhiera.training is not drawn"
    )


def test_a_file_outside_every_room_and_an_unused_arrow_are_found(tmp_path):
    (tmp_path / "medhiera" / "data").mkdir(parents=True)
    (tmp_path / "medhiera" / "data" / "rows.py").touch()
    (tmp_path / "medhiera" / "utils.py").write_text("import medhiera.data.rows\n")
    (tmp_path / "train.py").write_text("import medhiera.utils, numpy\n")
    text = "```arrows\nmedhiera.data ->\nspace -> medhiera.data\nscripts -> medhiera.data\n```\n"
    assert compare_with_drawing(tmp_path, read_drawing(text)) == [
        "medhiera/utils.py:1: medhiera.utils -> medhiera.data is not drawn (it imports medhiera.data.rows)",
        "scripts -> medhiera.data is drawn, and nothing uses it",
        "space -> medhiera.data is drawn, and nothing uses it",
        "train.py:1: scripts -> medhiera.utils is not drawn (it imports medhiera.utils)",
    ]


def test_every_file_is_in_the_document_with_its_purpose(root):
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    described = {
        (room.splitlines()[0].strip().strip("`"), name)
        for room in rooms
        for name in re.findall(r"^\| `(\S+\.py)` \| \S", room, re.MULTILINE)
    }
    files = {
        ("The scripts" if path.parent == root else f"{path.parent.relative_to(root)}/", path.name)
        for path in find_sources(root).values()
        if path.name != "__init__.py"
    }
    assert described == files


def test_every_file_is_short_and_says_what_it_is_for(root):
    faults = []
    for path in find_sources(root).values():
        place, text = path.relative_to(root), path.read_text(encoding="utf-8")
        if not ast.get_docstring(ast.parse(text)):
            faults.append(f"{place} has no docstring")
        if (lines := len(text.splitlines())) > LONGEST_FILE:
            faults.append(f"{place} has {lines} lines, over {LONGEST_FILE}")
    assert not faults, "\n".join(faults)


def test_every_function_is_short(root):
    faults = []
    for path in find_sources(root).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    place = f"{path.relative_to(root)}:{node.lineno}"
                    faults.append(f"{place}: {node.name} has {lines} lines, over {LONGEST_FUNCTION}")
    assert not faults, "\n".join(faults)


def test_mypy_alone_checks_every_file(root):
    named = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    checked = {path for name in named for path in root.glob(name)}
    sources = find_sources(root)
    assert len(sources) > 200 and sources["medhiera.space.app"] in sources.values()
    assert [module for module, path in sources.items() if not checked & {path, *path.parents}] == []


def test_no_two_test_files_have_one_name(root):
    # pytest imports them by their names alone, and of two it refuses the second when both are collected.
    names = [path.name for path in (root / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
