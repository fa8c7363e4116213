"""Imports run downward only: this is what keeps a part replaceable."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pile_lightning"
COMMON = {
    "batch",
    "checkpoint_settings",
    "checksum",
    "config",
    "config_file",
    "device",
    "file_lock",
    "file_names",
    "lean_defaults",
    "loop_state",
    "parser_words",
    "shipped_configs",
    "version",
    "whole_file",
}
MAY_IMPORT = {
    "batch": set(),
    "checkpoint_settings": {"config"},
    "checksum": set(),
    "config": set(),
    "config_file": set(),
    "device": set(),
    "file_lock": set(),
    "file_names": set(),
    "lean_defaults": set(),
    "loop_state": set(),
    "parser_words": set(),
    "shipped_configs": set(),
    "version": set(),
    "whole_file": set(),
    "nn": COMMON,
    "optim": COMMON,
    "metrics": COMMON,
    "data": COMMON,
    "checkpoint": COMMON,
    "analysis": COMMON,
    "parallel": COMMON | {"nn", "checkpoint"},
    "modules": COMMON | {"nn", "optim", "metrics", "checkpoint", "parallel"},
    "callbacks": COMMON | {"optim", "analysis"},
    "loggers": COMMON,
    # weighs networks and optimizers of any module, which it is handed; tables of GPUs and of text
    "plan": COMMON | {"nn", "optim", "parallel", "callbacks"},
    "cli": COMMON
    | {"nn", "optim", "metrics", "data", "checkpoint", "parallel", "modules", "callbacks", "plan"}
    | {"analysis", "loggers"},
}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def unit(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_units(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [node.module]
            if node.module == "pile_lightning":
                names = [f"pile_lightning.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "pile_lightning" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    here = unit(path)
    outside = set(imported_units(path)) - {here}
    assert outside <= MAY_IMPORT[here], f"{here} must not import {outside - MAY_IMPORT[here]}"


def test_train_py_stays_a_door():
    lines = (PACKAGE.parent / "train.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 15
