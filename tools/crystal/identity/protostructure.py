"""The standardised description of a crystal: space group and Wyckoff positions of each element.

Equivalent settings, origins and hands give one description (doi:10.1126/sciadv.abn4117 uses the
same idea). It holds no free parameter, so different crystals may share one; and a displaced atom
lowers the symmetry, so it is read at several tolerances.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import gcd
from string import ascii_uppercase

from hullward.models.crystal import Crystal
from hullward.tools.crystal.symmetry import find_symmetry, is_extreme, plain_cell

# Groups that are mirror images: StructureMatcher, too, takes mirror images for one structure.
_LEFT_OF = {
    **{78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171},
    **{179: 178, 181: 180, 213: 212},
}
_FAMILY = ((2, "a"), (15, "m"), (74, "o"), (142, "t"), (194, "h"), (230, "c"))


@dataclass(frozen=True)
class Protostructure:
    """What crystals of one arrangement have in common.

    space_group: 1..230, the smaller of two that are mirror images.  pearson: e.g. 'cF8'.
    orbits: (element, Wyckoff letter, number of such orbits), sorted, of the equivalent choices the
    first.
    """

    space_group: int
    pearson: str
    orbits: tuple[tuple[str, str, int], ...]

    @property
    def label(self) -> str:
        """As AFLOW writes it, e.g. 'AB_cF8_225_a_b:Cl-Na' for NaCl."""
        elements = sorted({el for el, _, _ in self.orbits})
        words = [
            "".join(f"{n if n > 1 else ''}{letter}" for el, letter, n in self.orbits if el == own)
            for own in elements
        ]
        sites = self._sites(elements)
        unit = gcd(*sites)
        amounts = [n // unit for n in sites]
        anonymous = "".join(
            f"{name}{n if n > 1 else ''}" for name, n in zip(ascii_uppercase, amounts, strict=False)
        )
        group = f"{anonymous}_{self.pearson}_{self.space_group}"
        return f"{group}_{'_'.join(words)}:{'-'.join(elements)}"

    def _sites(self, elements: list[str]) -> list[int]:
        from hullward.models.wyckoff import positions

        sizes = {p.letter: p.multiplicity for p in positions(self.space_group).values()}
        return [sum(n * sizes[w] for el, w, n in self.orbits if el == own) for own in elements]

    @property
    def mark(self) -> int:
        """A hash of the label without elements (A, B… in alphabetical order): 32 bits, not 0."""
        arrangement = self.label.partition(":")[0]
        return int.from_bytes(hashlib.sha256(arrangement.encode()).digest()[:4], "little") or 1


def find_protostructure(crystal: Crystal, symprec_a: float) -> Protostructure | None:
    """The description at a distance tolerance in Å; None where no symmetry is found.

    By moyopy, or by spglib where moyopy fails or its search might not end.
    """
    if is_extreme(crystal):
        return None
    try:
        found = find_symmetry(crystal, symprec_a)
    except ValueError:
        return _by_spglib(crystal, symprec_a)
    n_sites = len(found.std_cell.numbers)
    return _described(crystal, found.number, found.orbits, found.wyckoffs, n_sites)


def _by_spglib(crystal: Crystal, symprec_a: float) -> Protostructure | None:
    import spglib

    with warnings.catch_warnings(), _without_messages():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.get_symmetry_dataset(plain_cell(crystal), symprec=symprec_a)
    if found is None:
        return None
    orbits = found.crystallographic_orbits
    return _described(crystal, found.number, orbits, found.wyckoffs, len(found.std_types))


def _described(
    crystal: Crystal, number: int, orbits: Iterable[int], letters: Sequence[str], n_sites: int
) -> Protostructure:
    """orbits: for each site the first of its orbit.  n_sites: of the conventional cell."""
    counts = Counter((crystal.species[i], letters[i]) for i in set(orbits))
    choices = [
        tuple(sorted((el, letter.translate(names), n) for (el, letter), n in counts.items()))
        for names in _equivalent_letters(number)
    ]
    best = min(choices, key=lambda choice: (sum(_rank(letter) for _, letter, _ in choice), choice))
    family = next(letter for last, letter in _FAMILY if number <= last)
    pearson = f"{family}{_centring(number)}{n_sites}"
    return Protostructure(_LEFT_OF.get(number, number), pearson, best)


@cache
def _centring(space_group: int) -> str:
    """The first letter of the group's symbol, C for A and B as well."""
    from gemmi import find_spacegroup_by_number

    letter = str(find_spacegroup_by_number(space_group).hm)[0]
    return "C" if letter in "AB" else letter


def _rank(letter: str) -> int:
    """Of a Wyckoff letter; group 47 needs an A after z, which AFLOW counts as 0."""
    return 0 if letter == "A" else ord(letter) - 96


@cache
def _equivalent_letters(space_group: int) -> tuple[dict[int, str], ...]:
    """The renamings of Wyckoff letters that another choice of origin or axes brings about."""
    return tuple(
        {int(old): new for old, new in names.items()} for names in _renamings()[str(space_group)]
    )


@cache
def _renamings() -> dict[str, list[dict[str, str]]]:
    """Pymatgen's table. Importing its module would read all of AFLOW's structures, for seconds."""
    name = "prototypes/wyckoff-position-relabelings.json.gz"
    raw = (files("pymatgen.analysis") / name).read_bytes()
    found: dict[str, list[dict[str, str]]] = json.loads(gzip.decompress(raw))
    return found


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Keep spglib's library from writing to standard error where a tolerance does not suit it."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
