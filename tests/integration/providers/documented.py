"""The provider of `docs/providers.md`, created from the code exactly as it is printed on the page."""

import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from shared import providers

PAGE = Path(__file__).parents[3] / "docs" / "providers.md"

_MODULE = re.compile(r"^`(shared/providers/\S+)\.py`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROWS = re.compile(r"^```python\n(    .*?)^```$", re.MULTILINE | re.DOTALL)


@cache
def documented_package() -> ModuleType:
    """Import the package on the page, whose modules are in the order in which they import each other."""
    package = ModuleType("shared.providers.pigeon")
    package.__path__ = []
    sys.modules[package.__name__] = providers.pigeon = package  # type: ignore[attr-defined] # it is not a file
    for path, source in _MODULE.findall(PAGE.read_text()):
        name = path.removesuffix("/__init__").replace("/", ".")
        module = sys.modules.setdefault(name, ModuleType(name))
        exec(compile(source, f"{PAGE}: {path}", "exec"), module.__dict__)  # noqa: S102 - our own documentation
    return package


def documented_rows(names: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of the contract test on the page, in which these names are used."""
    [rows] = _ROWS.findall(PAGE.read_text())
    names = {**names, **vars(documented_package())}
    exec(compile(f"ROWS = {{{rows}}}", str(PAGE), "exec"), names)  # noqa: S102 - our own documentation
    found: dict[str, Any] = names["ROWS"]
    return found
