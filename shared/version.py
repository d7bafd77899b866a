"""The version of the project, which only pyproject.toml states."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DISTRIBUTION = "messaging-service"


def _read() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        # In a checkout and in the image, the code is not installed, but pyproject.toml is next to it.
        pyproject = Path(__file__).parents[1] / "pyproject.toml"
        return str(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"])


VERSION = _read()
