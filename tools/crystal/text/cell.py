"""Form A of crystal text, LLaMat-CIF's: one strict grammar, read and written only here.

    4.2 4.2 6.7           a b c in Å, one decimal
    90 90 120             α β γ in whole degrees
    Ga                    then, for every site, its element
    0.37 0.85 0.89        and its fractional coordinates, two decimals
    ...

Reading accepts or rejects; it never repairs. It tolerates spaces, tabs and carriage returns at the
end of a line and blank lines at the end of the text. Numbers are plain ASCII digits without sign,
exponent or leading zeros: lengths up to 999.9, coordinates 0.00 to 1.00. Other writers print 1.00
for coordinates that round up to the next cell; it is read as 0.00, the same point.

Writing rounds: lengths to 0.1 Å, angles to 1° (LLaMat truncated them; both read the same),
coordinates to 0.01, wrapped so that 0.995 and above become 0.00. `parse_cell_text` reads what
`write_cell_text` returns, and writing the result again gives the same text. The form has no
handedness: a left-handed cell comes back as its mirror image.

The format is that of Gruver et al. (arXiv:2402.04379), as used by LLaMat
(doi:10.1038/s42256-026-01199-8).
"""

from __future__ import annotations

import re
from itertools import takewhile

from hullward.models.crystal import Crystal, lattice_matrix
from hullward.models.formulas import ELEMENTS
from hullward.tools.crystal.input_checks import MAX_SITES, shorten
from hullward.tools.records import Flaw, Reason

MAX_CHARS = 32_768  # 500 sites need about 9,000

_LENGTH = r"(?:0|[1-9][0-9]{0,2})\.[0-9]"
_ANGLE = r"(?:0|[1-9][0-9]{0,2})"
_FRACTION = r"(?:0\.[0-9]{2}|1\.00)"
_LENGTHS = re.compile(f"{_LENGTH} {_LENGTH} {_LENGTH}")
_ANGLES = re.compile(f"{_ANGLE} {_ANGLE} {_ANGLE}")
_BEGINNING = re.compile(rf"^{_LENGTHS.pattern}[ \t\r]*\n{_ANGLES.pattern}[ \t\r]*$", re.MULTILINE)
_SYMBOL = re.compile("[A-Z][a-z]?")
_COORDINATES = re.compile(f"{_FRACTION} {_FRACTION} {_FRACTION}")
_COMPLETION = "0.00 0.00 0.00"


def parse_cell_text(text: str) -> Crystal | Flaw:
    """The crystal that a text describes, or its first flaw."""
    lines = lines_of(text)
    if isinstance(lines, Flaw):
        return lines
    if not _LENGTHS.fullmatch(lines[0]):
        return wrong(Reason.BAD_LENGTHS, lines, 0, "three lengths such as '4.2 4.2 6.7'")
    if len(lines) == 1:
        return _flaw(Reason.TRUNCATED, "the text ends after line 1, before the angles")
    if not _ANGLES.fullmatch(lines[1]):
        return wrong(Reason.BAD_ANGLES, lines, 1, "three angles such as '90 90 120'")
    if len(lines) == 2:
        return _flaw(Reason.NO_SITES, "the text ends after line 2, before the first site")
    if len(lines) > 2 + 2 * MAX_SITES:
        return _flaw(Reason.TOO_LARGE, f"{len(lines)} lines: more than {MAX_SITES} sites")
    if flaw := _sites_flaw(lines):
        return flaw
    try:
        lattice = lattice_matrix(_numbers(lines[0]), _numbers(lines[1]))
    except ValueError as error:
        return _flaw(Reason.IMPOSSIBLE_CELL, f"lines 1 and 2: {error}")
    # 1.00 is 0.00 of the neighbouring cell
    coords = [[x % 1.0 for x in _numbers(line)] for line in lines[3::2]]
    return Crystal.from_arrays(lattice, lines[2::2], coords)


def write_cell_text(crystal: Crystal) -> str:
    """The text of a crystal, without a final newline.

    Raises ValueError for crystals the form cannot represent: more than 500 sites, unreal elements,
    lengths that round to 0.0 or above 999.9 Å, or angles that are impossible once rounded.
    """
    if crystal.n_atoms > MAX_SITES:
        raise ValueError(f"{crystal.n_atoms} sites; crystal text holds at most {MAX_SITES}")
    if unreal := set(crystal.species) - ELEMENTS:
        raise ValueError(f"not elements: {sorted(unreal)}")
    lengths, angles = crystal.parameters
    lines = [" ".join(f"{x:.1f}" for x in lengths), " ".join(str(round(x)) for x in angles)]
    if not _LENGTHS.fullmatch(lines[0]):
        raise ValueError(f"lengths {lines[0]} Å; crystal text holds at most 999.9")
    # raises if rounding made the cell impossible
    lattice_matrix(_numbers(lines[0]), _numbers(lines[1]))
    for symbol, xyz in zip(crystal.species, crystal.frac_coords, strict=True):
        lines += [symbol, " ".join(map(_fraction, xyz))]
    return "\n".join(lines)


def split_completion(text: str) -> tuple[str, str]:
    """(head, rest) of a model's completion: head ends with the last complete site in a row.

    Models write on after the last site ("…Title"). The rest is returned, because an element line at
    its start means that the completion was truncated. Without a site the head is ''.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    shown = [_trimmed(line) for line in lines]
    if not (len(lines) > 3 and _LENGTHS.fullmatch(shown[0]) and _ANGLES.fullmatch(shown[1])):
        return "", text
    pairs = zip(shown[2::2], shown[3::2], strict=False)
    sites = takewhile(lambda p: _SYMBOL.fullmatch(p[0]) and _COORDINATES.fullmatch(p[1]), pairs)
    end = 2 + 2 * len(list(sites))
    return ("".join(lines[:end]), "".join(lines[end:])) if end > 2 else ("", text)


def find_cell(text: str) -> int | None:
    """Where the first line of lengths stands that a line of angles follows."""
    found = _BEGINNING.search(text)
    return found.start() if found else None


def begins_cell(text: str) -> bool:
    """Whether a text begins with a line of lengths and one of angles."""
    return _BEGINNING.match(text) is not None


def _sites_flaw(lines: list[str]) -> Flaw | None:
    """The first flaw in the element and coordinate lines, which start at index 2."""
    for at in range(2, len(lines), 2):
        symbol = lines[at]
        if not _SYMBOL.fullmatch(symbol):
            if at > 2 and not any(_COORDINATES.fullmatch(line) for line in lines[at:]):
                return wrong(Reason.TRAILING_TEXT, lines, at, "nothing after the last site")
            return wrong(Reason.BAD_ELEMENT_LINE, lines, at, "an element symbol")
        if symbol not in ELEMENTS:
            return wrong(Reason.UNKNOWN_ELEMENT, lines, at, "an element")
        if at + 1 == len(lines):
            return _flaw(Reason.TRUNCATED, f"the text ends after line {at + 1}, {shorten(symbol)}")
        xyz = lines[at + 1]
        if not _COORDINATES.fullmatch(xyz):
            cut_short = _COORDINATES.fullmatch(xyz + _COMPLETION[len(xyz) :])
            if at + 2 == len(lines) and cut_short:
                return _flaw(
                    Reason.TRUNCATED, f"the text ends within line {at + 2}, {shorten(xyz)}"
                )
            wanted = "three fractions such as '0.37 0.85 0.89'"
            return wrong(Reason.BAD_COORDINATE_LINE, lines, at + 1, wanted)
    return None


def lines_of(text: str) -> list[str] | Flaw:
    """Lines without trailing blanks, none blank at the end; a flaw for no text or too much."""
    if len(text) > MAX_CHARS:
        return _flaw(Reason.TOO_LARGE, f"{len(text)} characters, limit {MAX_CHARS}")
    lines = [_trimmed(line) for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines or _flaw(Reason.EMPTY, "no text")


def _trimmed(line: str) -> str:
    return line.rstrip(" \t\r\n")


def _numbers(line: str) -> list[float]:
    return [float(word) for word in line.split(" ")]


def _fraction(x: float) -> str:
    text = f"{x % 1.0:.2f}"
    return "0.00" if text == "1.00" else text


def _flaw(reason: Reason, detail: str) -> Flaw:
    return Flaw(reason=reason, detail=detail)


def wrong(reason: Reason, lines: list[str], at: int, wanted: str) -> Flaw:
    return _flaw(reason, f"line {at + 1}: expected {wanted}, found {shorten(lines[at])}")
