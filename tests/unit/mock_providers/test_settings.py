"""The settings of the process and of each API."""

from pathlib import Path

import pytest

import mock_providers
from mock_providers.registry import EMAIL, SMS
from mock_providers.settings import MockSettings, Settings

README = Path(mock_providers.__file__).with_name("README.md").read_text()


SETTINGS = dict.fromkeys((Settings, *(api.settings_class for api in (*SMS.apis, *EMAIL.apis))))


@pytest.mark.parametrize("settings_class", SETTINGS)
def test_the_readme_names_each_setting(settings_class: type[MockSettings]) -> None:
    names = {name.upper() for name in settings_class.model_fields}
    assert names
    assert {name for name in names if f"| `{name}` |" not in README} == set()
