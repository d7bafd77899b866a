"""The lock files, and the version of the project."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from shared.version import VERSION

ROOT = Path(__file__).parents[3]
LOCK_FILES = ("requirements.lock", "requirements-run.lock", "requirements-dev.lock")
OWN_PACKAGES = {"services", "shared", "mock_providers", "dev", "migrations"}
# Parts of declared dependencies that belong to separate distributions.
PARTS = {"pydantic_core", "starlette", "opentelemetry"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def locked(name: str) -> set[str]:
    return set(re.findall(r"(?m)^[a-z0-9].*==[^ \\]+", (ROOT / name).read_text(encoding="utf-8")))


def test_each_lock_file_contains_the_smaller_ones() -> None:
    services, running, development = map(locked, LOCK_FILES)
    assert services < running < development


@pytest.mark.parametrize("name", LOCK_FILES)
def test_a_lock_file_has_hashes_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    requirements = re.findall(r"(?m)^[a-z0-9][^\n]*==(?:[^\n]*\\\n)+[^\n]*", text)
    assert len(requirements) == len(locked(name))
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "://" not in text


@pytest.mark.parametrize(
    ("folder", "group"),
    [
        ("services", None),
        ("shared", None),
        ("mock_providers", None),
        ("migrations", None),
        ("dev/local_stack", "run"),
    ],
)
def test_the_code_imports_only_declared_dependencies(folder: str, group: str | None) -> None:
    """A package that only the development dependencies include would be missing in production."""
    declared = {normalized(requirement) for requirement in PYPROJECT["project"]["dependencies"]}
    if group is not None:
        declared |= {normalized(requirement) for requirement in PYPROJECT["dependency-groups"][group]}
    distributions = packages_distributions()
    undeclared = {
        package
        for package in set(imports(ROOT / folder)) - PARTS
        if not declared & {normalized(name) for name in distributions.get(package, [])}
    }
    assert undeclared == set()


def normalized(requirement: str) -> str:
    (name,) = re.findall(r"^[\w.-]+", requirement)
    return str(name).lower().replace("_", "-")


def imports(folder: Path) -> Iterator[str]:
    """Yield the third-party packages that the code imports."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    modules = [alias.name for alias in names]
                case ast.ImportFrom(module=str(module), level=0):
                    modules = [module]
                case _:
                    modules = []
            packages = {module.partition(".")[0] for module in modules}
            yield from packages - OWN_PACKAGES - sys.stdlib_module_names


def test_the_version_is_that_of_pyproject() -> None:
    assert PYPROJECT["project"]["version"] == VERSION


def test_the_version_is_known_without_an_installation(tmp_path: Path) -> None:
    """A copy of the code with pyproject.toml, as in the image."""
    (tmp_path / "shared").mkdir()
    shutil.copy(ROOT / "shared" / "version.py", tmp_path / "shared")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import shared.version as v; print(v.VERSION)"
    printed = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == PYPROJECT["project"]["version"]
