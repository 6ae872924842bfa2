"""Build a reference for whole chemical systems with the project's own recipe.

    python -m hullward.tools.reference.recipe Li-Mn-O Li-Fe-O --out data/reference_embedded

Writes OUT.parquet (phases) and OUT.json (how they were made). Systems are worked on in parallel,
smaller ones first. Every finished computation is appended to a file in OUT.work, so that the same
command continues after a stop. `--extend` takes over the systems of an earlier build.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hullward.tools.reference.recipe.build import build_stored, build_systems, log_progress
from hullward.tools.reference.sources import read_manifest
from hullward.tools.relax import Executor


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help="e.g. Li-Mn-O")
    parser.add_argument("--systems-from", type=Path, help="a file with more systems, one a line")
    parser.add_argument("--formulas-from", type=Path, help="more formulas to try, one a line")
    parser.add_argument("--out", type=Path, required=True, help="path without ending")
    parser.add_argument("--extend", type=Path, help="an earlier build, path without ending")
    parser.add_argument("--potential", default="chgnet-0.3.0")
    parser.add_argument("--workers", type=int, default=1, help="processes; 0: in this one")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--redo-from", type=Path, help="systems of --extend to compute again")
    parser.add_argument(
        "--add-from", type=Path, help="systems of --extend to try nano's structure types in"
    )
    parser.add_argument("--again", type=Path, help="systems and formulas of an earlier build")
    parser.add_argument(
        "--stored", action="store_true", help="compute nothing: write finished systems"
    )
    arguments = parser.parse_args(argv)
    log_progress()
    if arguments.stored:
        named = _lines(arguments.formulas_from)
        manifest = build_stored(arguments.out, arguments.potential, named, arguments.extend)
        print(manifest.statement)
        return
    systems = [*arguments.systems, *_lines(arguments.systems_from)]
    formulas = _lines(arguments.formulas_from)
    if arguments.again:
        earlier = read_manifest(arguments.again.with_suffix(".json"))
        systems += earlier.systems
        formulas += [f for facts in earlier.systems.values() for f in facts.tried_formulas]
    redo = _lines(arguments.redo_from)
    add = _lines(arguments.add_from)
    if not systems and not redo and not add:
        parser.error("name at least one system")
    manifest = build_systems(
        systems,
        arguments.out,
        arguments.potential,
        Executor(workers=arguments.workers, device=arguments.device),
        formulas=formulas,
        extend=arguments.extend,
        redo=redo,
        add=add,
    )
    print(manifest.statement)


def _lines(path: Path | None) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path is not None else []


if __name__ == "__main__":
    main()
