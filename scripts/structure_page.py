"""Writes the modules into ``docs/structure.md``: layers from ``pyproject.toml``, purposes from docstrings.

python scripts/structure_page.py
"""

# ruff: noqa: INP001 - a program, not a package
from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "rushlight"
PAGE = ROOT / "docs" / "structure.md"
BEGIN, END = "<!-- modules: made by scripts/structure_page.py -->\n", "<!-- end of modules -->\n"


def layers() -> list[list[str]]:
    """The modules and packages of each layer, lowest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    listed = next(contract for contract in contracts if contract["id"] == "layers")["layers"]
    return [re.findall(r"\w+", layer) for layer in reversed(listed)]


def files_of(name: str) -> list[Path]:
    """The files of a module or package."""
    return sorted((SRC / name).glob("*.py")) if (SRC / name).is_dir() else [SRC / f"{name}.py"]


def purpose_of(path: Path) -> str:
    """The first sentence of the module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "The version."
    first = " ".join(text.partition("\n\n")[0].split())
    return first.replace("``", "`").replace("|", "\\|")


def modules() -> str:
    """One table per layer."""
    parts = []
    for number, names in enumerate(layers()):
        rows = [f"| `{path.relative_to(SRC)}` | {purpose_of(path)} |" for n in names for path in files_of(n)]
        parts.append(f"\n### Layer {number}\n\n| file | purpose |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "".join(parts) + "\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + modules() + END + rest.partition(END)[2], encoding="utf-8")
