"""Writes the documents that are generated from the code to the folder `docs`.

    python -m dev.contract [--release]

`openapi.json` is the contract of the latest release. Only `--release` replaces it.
"""

import argparse
import json
from pathlib import Path

from dev.contract.asyncapi import asyncapi_document
from dev.contract.catalogue import problem_catalogue
from dev.contract.openapi import openapi_document

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the generated documents.")
    parser.add_argument("--release", action="store_true", help="also write the contract of a new release")
    arguments = parser.parse_args()
    written = {"errors.md": problem_catalogue(), "asyncapi.json": as_json(asyncapi_document())}
    if arguments.release or not (DOCS / "openapi.json").exists():
        written["openapi.json"] = as_json(openapi_document())
    for name, text in written.items():
        (DOCS / name).write_text(text, encoding="utf-8")


def as_json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
