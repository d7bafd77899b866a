"""The lock files, and the version of the project."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shared.version import VERSION

ROOT = Path(__file__).parents[3]
LOCK_FILES = ("requirements.lock", "requirements-run.lock", "requirements-dev.lock")
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


def test_the_version_is_that_of_pyproject() -> None:
    assert PYPROJECT["project"]["version"] == VERSION


def test_the_version_is_known_without_an_installation(tmp_path: Path) -> None:
    """A copy of the code with pyproject.toml, as in the image."""
    (tmp_path / "shared").mkdir()
    shutil.copy(ROOT / "shared" / "version.py", tmp_path / "shared")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    printed = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
         "from shared.version import VERSION; print(VERSION)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert printed.stdout.strip() == PYPROJECT["project"]["version"]
