"""Compare the failures of the suites in a folder with a list of explained failures.

    python explained.py FOLDER LIST

FOLDER has a file for each suite, with a JSON object in each line: the `case` that failed, its `kind`, and the
`input`, `expected` and `actual` values. LIST has a line `suite: case` for each failure that is not a defect;
the comment above it is the explanation. Exits with 1 if any failure is not in the list.
"""

import json
import sys
from pathlib import Path


def listed(text: str) -> set[str]:
    """Return the explained failures. Raises ValueError if there is no explanation above one of them."""
    entries: set[str] = set()
    explanation = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#"):
            explanation = line
        elif not line:
            explanation = ""
        elif not explanation:
            raise ValueError(f"{line}: is not explained")
        else:
            entries.add(line)
    return entries


def failures(folder: Path) -> dict[str, str]:
    """Return a description of each failure, by `suite: case`."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            values = "".join(f"\n    {name}: {row[name]!s:.400}" for name in ("input", "expected", "actual"))
            found[f"{path.stem}: {row['case']}"] = f"{row['kind']!s:.200}{values}"
    return found


def main(folder: str, file: str) -> int:
    explained, found = listed(Path(file).read_text()), failures(Path(folder))
    unexplained = [case for case in found if case not in explained]
    for case in unexplained:
        print(f"NOT EXPLAINED  {case}\n    {found[case]}")
    gone = sorted(explained - set(found))
    if gone:
        print("These failures are explained but did not occur:", *gone, sep="\n    ")
    print(f"{len(found)} failures, of which {len(found) - len(unexplained)} are explained in {file}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
