from pathlib import Path

import pytest

from dev.local_stack.configuration import configure
from dev.local_stack.data_folder import contents, delete_contents, is_in_use, locked, webhook_key
from dev.local_stack.errors import StackError
from dev.local_stack.reset import reset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with data of a supervisor."""
    folder = tmp_path / ".data"
    (folder / "postgres").mkdir(parents=True)
    (folder / "log").mkdir()
    (folder / "log" / "sender.log").touch()
    (folder / "state.json").touch()
    return folder


def test_a_locked_folder_is_in_use(folder: Path) -> None:
    assert not is_in_use(folder)
    with locked(folder):
        assert is_in_use(folder)
    assert not is_in_use(folder)


def test_a_folder_is_deleted_with_its_contents(folder: Path) -> None:
    delete_contents(folder)
    assert not folder.exists()


def test_a_key_for_webhooks_is_created_once_and_is_private(folder: Path) -> None:
    key = webhook_key(folder)
    assert len(key) >= 32
    assert webhook_key(folder) == key
    assert (folder / "webhook.key").stat().st_mode & 0o777 == 0o600
    delete_contents(folder)
    assert not folder.exists()


def test_other_files_in_the_folder_are_kept(folder: Path) -> None:
    (folder / "letters").touch()
    delete_contents(folder)
    assert [path.name for path in folder.iterdir()] == ["letters"]
    assert contents(folder) == []


def test_a_folder_in_use_is_not_deleted(folder: Path) -> None:
    configuration = configure({}, folder.parent)
    with locked(folder), pytest.raises(StackError, match="the stack is running"):
        reset(configuration, is_confirmed=True)
    assert (folder / "postgres").exists()


def test_nothing_is_deleted_without_a_confirmation(folder: Path) -> None:
    with pytest.raises(StackError, match="YES=1"):
        reset(configure({}, folder.parent), is_confirmed=False)
    assert (folder / "postgres").exists()


def test_a_reset_says_what_it_deleted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert reset(configure({}, folder.parent), is_confirmed=True) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"Deleted everything in {folder}.",
        f"{folder} is empty.",
    ]
