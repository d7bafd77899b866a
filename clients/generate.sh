#!/usr/bin/env bash
# Generates the models of the clients from docs/openapi.json, and the synchronous client from the asynchronous one.
# Needs npm and a package index.
set -euo pipefail
cd "$(dirname "$0")"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check datamodel-code-generator
"$scratch/venv/bin/datamodel-codegen" --input ../docs/openapi.json --input-file-type openapi \
  --output "$scratch/models.py" --output-model-type typing.TypedDict --target-python-version 3.11 \
  --use-schema-description --use-field-description --enum-field-as-literal all --disable-timestamp \
  --use-standard-collections --use-union-operator --openapi-scopes schemas 2>"$scratch/log" || {
  cat "$scratch/log"
  exit 1
}
# Responses may get further fields, and closed types would need Python 3.15.
sed -e 's/^from typing_extensions import TypedDict$//' -e 's/^from typing import /from typing import TypedDict, /' \
  -e 's/(TypedDict, closed=True)/(TypedDict)/' -e '/^    closed=True,$/d' "$scratch/models.py" \
  >python/src/messaging_client/models.py
python3 python/unasync.py
npx --yes openapi-typescript ../docs/openapi.json --output typescript/src/schema.ts
