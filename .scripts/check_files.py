"""Refuse files that are too large, have merge marks or Windows line ends, or end without a newline.

pre-commit runs it with the names of the files about to be committed.
"""

import sys
from pathlib import Path

LARGEST = 2_000_000  # bytes; larger data belongs in a release, with its checksum in data/
CONFLICT = (b"<<<<<<< ", b">>>>>>> ")


def flaws(path: Path) -> list[str]:
    content = path.read_bytes()
    found = []
    if len(content) > LARGEST:
        found.append(f"has {len(content)} bytes; at most {LARGEST} are allowed")
    if b"\0" in content:  # binary
        return found
    if content and (not content.endswith(b"\n") or content.endswith(b"\n\n")):
        found.append("must end with exactly one newline")
    if b"\r\n" in content:
        found.append("has Windows line endings")
    if any(line.startswith(CONFLICT) for line in content.splitlines()):
        found.append("has the marks of an unfinished merge")
    return found


if __name__ == "__main__":
    complaints = [f"{name}: {flaw}" for name in sys.argv[1:] for flaw in flaws(Path(name))]
    print("\n".join(complaints), end="\n" if complaints else "")
    sys.exit(bool(complaints))
