import os
from pathlib import Path

import pytest

from shared.providers.registry import PROVIDERS


@pytest.fixture
def no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all settings of providers, including those of a `.env`."""
    monkeypatch.chdir(tmp_path)
    names = {field.upper() for provider in PROVIDERS.values() for field in provider.settings.model_fields}
    for name in names & os.environ.keys():
        monkeypatch.delenv(name)
