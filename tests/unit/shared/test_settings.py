from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest
from pydantic import SecretStr

from shared.settings import NonEmpty, Port, Settings, SettingsError, WebUrl, collect, load, read


class Pigeon(Settings):
    pigeon_id: NonEmpty
    pigeon_port: Port = 1
    pigeon_mode: Literal["fast", "slow"] = "fast"
    pigeon_url: WebUrl = "http://localhost"
    pigeon_key: SecretStr | None = None
    pigeon_delays: tuple[float, ...] = ()


@pytest.fixture(autouse=True)
def _no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no .env


def fails(*faults: str) -> NoReturn:
    raise SettingsError(*faults)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"pigeon_port": "x"}, "PIGEON_PORT: must be a valid integer, not 'x'"),
        ({"pigeon_port": "70000"}, "PIGEON_PORT: must be less than or equal to 65535, not '70000'"),
        ({"pigeon_mode": "lazy"}, "PIGEON_MODE: must be 'fast' or 'slow', not 'lazy'"),
        ({"pigeon_url": "ftp://a:hunter2@b"}, "PIGEON_URL: is not an http or https URL"),
        ({"pigeon_id": " "}, "PIGEON_ID: must not be empty"),
        ({"pigeon_delays": ["1", "soon"]}, "PIGEON_DELAYS: must be a valid number, not 'soon'"),
    ],
)
def test_a_fault_is_a_sentence_that_names_the_variable(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(Pigeon, **{"pigeon_id": "p", **values})
    assert caught.value.faults == (fault,)


def test_what_is_required_is_missed_whatever_else_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIGEON_KEY", "")
    with pytest.raises(SettingsError) as caught:
        read(Pigeon, required=["pigeon_key"], pigeon_port="x")
    assert caught.value.faults == (
        "PIGEON_ID is not set; see .env.example",
        "PIGEON_PORT: must be a valid integer, not 'x'",
        "PIGEON_KEY is not set; see .env.example",
    )


def test_what_is_required_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIGEON_KEY", "coo")
    settings = read(Pigeon, required=["pigeon_key"], pigeon_id="p")
    assert isinstance(settings, Pigeon)
    assert settings.pigeon_key == SecretStr("coo")


def test_the_faults_of_all_functions_are_collected() -> None:
    with pytest.raises(SettingsError) as caught:
        collect([lambda: fails("A: is odd", "B is not set"), lambda: 1, lambda: fails("C: is even")])
    assert caught.value.faults == ("A: is odd", "B is not set", "C: is even")
    assert collect([lambda: 1, lambda: 2]) == [1, 2]


def test_the_faults_of_a_variable_are_those_of_the_first_function_that_reads_it() -> None:
    with pytest.raises(SettingsError) as caught:
        collect([lambda: fails("A: 'x' is odd", "A: 'y' is odd"), lambda: fails("A: is even", "B: is odd")])
    assert caught.value.faults == ("A: 'x' is odd", "A: 'y' is odd", "B: is odd")


def test_a_program_ends_with_the_faults_of_all_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        load(Pigeon, program="loft", check=lambda: fails("PIGEON_ID: is lost", "LOFT: is full"))
    assert end.value.code == 1
    assert capsys.readouterr().err == "loft: PIGEON_ID is not set; see .env.example\nloft: LOFT: is full\n"


def test_a_program_ends_if_only_its_further_settings_have_faults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIGEON_ID", "p")
    assert load(Pigeon, program="loft").pigeon_id == "p"
    with pytest.raises(SystemExit):
        load(Pigeon, program="loft", check=lambda: fails("LOFT: is full"))
    assert capsys.readouterr().err == "loft: LOFT: is full\n"
