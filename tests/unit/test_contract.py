"""The generated documents follow from the code, and no release breaks the contract silently."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dev.contract.__main__ import DOCS, as_json
from dev.contract.asyncapi import EVENT_TYPES, INTERNAL, SUBJECTS, asyncapi_document
from dev.contract.catalogue import problem_catalogue
from dev.contract.openapi import openapi_document
from shared.bus.topology import Stream, streams
from tests.jetstream import subject_matches

CHANGELOG = (DOCS.parent / "CHANGELOG.md").read_text()


def test_the_list_of_errors_is_up_to_date() -> None:
    assert (DOCS / "errors.md").read_text() == problem_catalogue(), "run `make contract`"


def test_the_description_of_the_streams_is_up_to_date() -> None:
    assert (DOCS / "asyncapi.json").read_text() == as_json(asyncapi_document()), "run `make contract`"


def test_no_description_has_a_section_of_a_docstring() -> None:
    for document in (asyncapi_document(), openapi_document()):
        assert not re.search(r"\\n *(Args|Attributes|Raises|Returns):", json.dumps(document))


def test_the_description_of_the_streams_is_complete() -> None:
    assert {type_ for subject in SUBJECTS for type_ in subject.types} == set(EVENT_TYPES)
    assert {subject.stream for subject in SUBJECTS} == set(Stream) - INTERNAL
    declared = {each.name: each.subjects or [] for each in streams(replicas=1, max_bytes=-1)}
    for subject in SUBJECTS:
        example = re.sub(r"\{\w+\}", "x", subject.address)
        assert any(subject_matches(pattern, example) for pattern in declared[subject.stream])


def breaking_changes(before: Path, after: Path) -> list[dict[str, Any]]:
    """Return the changes that may break a client, as oasdiff finds them."""
    oasdiff = shutil.which("oasdiff")
    if oasdiff is None:
        pytest.skip("oasdiff is not installed")
    command = [oasdiff, "breaking", str(before), str(after), "--format", "json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [change for change in json.loads(finished.stdout or "[]") or [] if not is_addition(change)]


def is_addition(change: dict[str, Any]) -> bool:
    """Return whether a change only adds something that clients have to expect, or ignore.

    The requests of webhooks are made by the service, so that a further field is an addition there.
    """
    if change["path"].startswith("webhook:"):
        return bool(re.match("new-required-request|request-property-became", change["id"]))
    return str(change["id"]) == "response-property-enum-value-added"


def unnamed(changes: list[dict[str, Any]], changelog: str) -> list[str]:
    """Return the changes that no entry of the next release names; an entry begins with **Breaking:**.

    It names an operation such as `GET /api/messages`, or a property or parameter.
    """
    unreleased = changelog.partition("## Unreleased")[2].partition("\n## ")[0]
    entries = re.findall(r"(?ms)^- \*\*Breaking:\*\*.*?(?=^- |^#|\Z)", unreleased)
    names = {name for entry in entries for name in re.findall(r"`([^`]+)`", entry)}
    found = []
    for change in changes:
        operation = f"{change['operation']} {change['path']}"
        properties = {name.rpartition("/")[2] for name in re.findall(r"`([^`]+)`", change["text"])}
        if not names & {operation, *properties}:
            found.append(f"{operation}: {change['text']}")
    return found


def test_the_changelog_names_every_breaking_change(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(as_json(openapi_document()))

    assert unnamed(breaking_changes(DOCS / "openapi.json", tmp_path / "openapi.json"), CHANGELOG) == []


def test_a_breaking_change_is_noticed(tmp_path: Path) -> None:
    document = openapi_document()
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(as_json(document))
    del document["paths"]["/api/messages/{id}"]["delete"]
    del document["components"]["schemas"]["EmailRequest"]["properties"]["cc"]
    after.write_text(as_json(document))
    changes = breaking_changes(before, after)

    found = {text.partition(":")[0] for text in unnamed(changes, "")}
    assert found >= {"POST /api/messages/email", "DELETE /api/messages/{id}"}
    entry = "## Unreleased\n\n- **Breaking:** Nothing has `cc`,\n  and `DELETE /api/messages/{id}` is gone.\n"
    assert unnamed(changes, entry) == []
    assert unnamed(changes, entry.replace("**Breaking:** ", "")) != []
