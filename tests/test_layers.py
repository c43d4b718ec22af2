"""Imports point down: ``embedctl -> pipelines -> stores``."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"stores": {"stores"}, "pipelines": {"pipelines", "stores"}}
OURS = {"embedctl", "pipelines", "stores"}


def imported_roots(file: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_point_downwards(layer):
    files = list((ROOT / layer).rglob("*.py"))
    assert files
    for file in files:
        ours = imported_roots(file) & OURS
        assert ours <= MAY_IMPORT[layer], f"{file.name} imports {ours - MAY_IMPORT[layer]}"


def test_stores_import_no_torch():
    for file in (ROOT / "stores").rglob("*.py"):
        assert "torch" not in imported_roots(file), file.name
