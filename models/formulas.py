"""Chemical formulas as amounts of elements: one grammar for every reader.

Read are `NaCl`, `Na1 Cl1`, `Li0.5CoO2`, `Fe1e-5Ni1`, `Ca3(PO4)2`, `[Co(NH3)6]Cl3`, `Fe₂O₃` and
`CuSO4·5H2O`. Anything else is refused with its remedy and never repaired: isotopes, charges,
variable amounts, words, and a full stop that may be a decimal point or part of a hydrate.
"""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping

from hullward.models.errors import InputError

ELEMENTS = frozenset(
    (  # noqa: SIM905 - a list literal would take a page
        "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As "
        "Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu "
        "Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np "
        "Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
    ).split(" ")
)
# Roughly by how common they are in crystals: a typing error more likely meant an early one.
_COMMON = (  # noqa: SIM905 - a list literal would take a page
    "O H C N F S Cl P Si Na Li K Mg Ca Al Fe Mn Ti Zn Cu Ni Co Ba Sr Cr V Zr B Br I Se Te Sn Pb Sb "
    "Bi Ga In Ge As La Y Nb Mo W Ag Cs Rb Cd Hg Ce Nd Hf Ta Ru Rh Pd Pt Au"
).split(" ")
_KEYS = {
    letter: (row * 0.4 + place, row)
    for row, letters in enumerate(("qwertyuiop", "asdfghjkl", "zxcvbnm"))
    for place, letter in enumerate(letters)
}
MAX_CHARS = 1000
MAX_ATOMS = 1e9
MIN_SHARE = 1e-12  # of all atoms; below it an amount is the rounding of another
PYMATGEN_MIN = 1e-8  # smaller amounts are dropped by pymatgen's Composition

_FLAT = re.compile(r"(?:[A-Z][a-z]?(?:[1-9][0-9]{0,5})?)+")
_COUNTED = re.compile(r"([A-Z][a-z]?)([0-9]*)")
_TOKEN = re.compile(
    r"\s*(?:(?P<symbol>[A-Z][a-z]*)|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<bracket>[()]))"
)
_SPECIES = re.compile(  # 'Na', 'Na+', 'Fe3+', 'Fe2.5+', 'O-2', with or without ',spin=5'
    r"([A-Z][a-z]*)(?:[0-9]*\.?[0-9]*[+-]|[+-][0-9]+\.?[0-9]*)?(?:,?spin=-?[0-9.]+)?"
)
_SUBSCRIPTS = {ord("₀") + digit: str(digit) for digit in range(10)}
_SAME = _SUBSCRIPTS | str.maketrans("[]{}·•⋅∙*", "()()·····") | {ord("@"): ""}  # Y3N@C80
_ROMAN = re.compile(r"\((?:II|III|IV|VI{1,3}|IX|[IV](?=\)(?!\s*[0-9])))\)")
_CHARGE = re.compile(r"[+^⁺⁻⁰¹²³⁴-⁹]|[-−]\s*[)]?$")
_WORD_DOT = re.compile(r"\.(?![0-9])")
_DOT_NUMBER = re.compile(r"(?<![0-9])\.[0-9]|[0-9]\.[0-9]+\.[0-9]")
_DECIMAL = re.compile(r"(?<![0-9.])[1-9][0-9]*\.[0-9]+(?=\s*[A-Z(])")
_ADDUCT = re.compile(r"\s*\(?(?:H2O|OH2|NH3|HF|HCl|CO2|CH3|C2H5|C6H6)")


def formula_amounts(text: object) -> dict[str, float]:
    """Atoms of each element in a formula, in the order of the text.

    >>> formula_amounts("CuSO4·5H2O")
    {'Cu': 1.0, 'S': 1.0, 'O': 9.0, 'H': 10.0}

    Raises InputError, with the text and its remedy, for anything but a formula of one composition.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"no formula: found {_shown(text)}")
    if len(text) <= MAX_CHARS and _FLAT.fullmatch(text):
        amounts: dict[str, float] = {}
        for symbol, number in _COUNTED.findall(text):
            amounts[symbol] = amounts.get(symbol, 0.0) + float(number or 1)
        if amounts.keys() <= ELEMENTS:
            return amounts
    try:
        return _checked(_sum_of_parts(text))
    except ValueError as error:
        raise InputError(f"{_shown(text)} is no formula: {error}") from None


def composition_amounts(composition: object) -> dict[str, float]:
    """Atoms of each element in a mapping of element or ion to amount, or in a formula.

    Charges and spins of ions, as in pymatgen's 'Fe3+' or 'Mn3+,spin=5', do not count. An amount of
    zero or None is an element that is absent. Raises InputError as `formula_amounts` does.
    """
    if not isinstance(composition, Mapping):
        return formula_amounts(composition)
    amounts: dict[str, float] = {}
    try:
        for key, amount in composition.items():
            match = _SPECIES.fullmatch(str(key))
            symbol = _element(match[1] if match else str(key))
            if amount is None or amount == 0:
                continue
            if isinstance(amount, bool) or not isinstance(amount, int | float):
                raise ValueError(f"the amount of {symbol} is {_shown(amount)}, not a number")
            if not 0 < amount <= MAX_ATOMS:
                raise ValueError(f"the amount of {symbol} is {_shown(amount)}; {_RANGE}")
            amounts[symbol] = amounts.get(symbol, 0.0) + float(amount)
        return _checked(amounts)
    except ValueError as error:
        raise InputError(f"{_shown(dict(composition))} is no composition: {error}") from None


def reduced_spelling(amounts: Mapping[str, float]) -> str:
    """The reduced formula in pymatgen's spelling, traces included."""
    from pymatgen.core import Composition

    if min(amounts.values()) < PYMATGEN_MIN:
        return "".join(f"{el}{n:g}" for el, n in amounts.items())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # noble gases have no electronegativity
        return str(Composition(dict(amounts)).reduced_formula)


_RANGE = f"write one above 0 and up to {MAX_ATOMS:g}"


def _sum_of_parts(text: str) -> dict[str, float]:
    """The amounts of all parts of a formula, as of a salt and its water."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"it has {len(text)} characters, limit {MAX_CHARS}")
    plain = text.translate(_SAME)
    _refuse_two_meanings(plain)
    parts = _WORD_DOT.sub("·", plain).split("·")
    total: dict[str, float] = {}
    for part in parts:
        match = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)", part) if len(parts) > 1 else None
        times = float(match[1]) if match else 1.0
        if times == 0:
            raise ValueError("a part of it is taken zero times; leave it out")
        for symbol, amount in _amounts(part[match.end() :] if match else part).items():
            total[symbol] = total.get(symbol, 0.0) + times * amount
    return total


def _refuse_two_meanings(text: str) -> None:
    """Raise ValueError for what other programs read in two ways, or not as a composition."""
    if _ROMAN.search(text):
        raise ValueError("a Roman numeral could be iodine or vanadium; leave it out")
    if _CHARGE.search(text):
        raise ValueError("it has a charge; write the formula without it")
    advice = "write · before water and other added molecules (CuSO4·5H2O), 0.5 for a half"
    if _DOT_NUMBER.search(text):
        raise ValueError(f"a number begins with a full stop or has two; {advice}")
    if "," in text:
        raise ValueError("it has a comma; write 0.5 for a half, and mixed sites as Fe0.5Mn0.5")
    parted = bool(_WORD_DOT.search(text)) or re.match(r"\s*[0-9]", text)
    for match in _DECIMAL.finditer(text):
        before = set(re.findall("[A-Z][a-z]?", text[: match.start()]))
        after = set(re.findall("[A-Z][a-z]?", text[match.end() :]))
        if parted or before & after or _ADDUCT.match(text, match.end()):
            raise ValueError(f"{match[0]} may be a decimal or the start of another part; {advice}")


def _tokens(text: str) -> Iterator[re.Match[str]]:
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            rest = text[place:].lstrip()[:12]
            raise ValueError(f"cannot read {_shown(rest)}; write element symbols and amounts only")
        yield match
        place = match.end()


def _amounts(text: str) -> dict[str, float]:
    """The amounts of symbols, numbers and brackets."""
    stack: list[dict[str, float]] = [{}]
    last: dict[str, float] | None = None  # what a number that follows multiplies
    for token in _tokens(text):
        kind, value = token.lastgroup, token[0].strip()
        if kind == "number":
            if last is None:
                raise ValueError(f"the number {value} follows no element")
            times = float(value)
            if not 0 < times <= MAX_ATOMS:
                raise ValueError(f"an amount is {value}; {_RANGE}")
            last = {el: n * times for el, n in last.items()}
            _add(stack[-1], last)
            last = None
            continue
        if last is not None:
            _add(stack[-1], last)
            last = None
        if kind == "symbol":
            last = {_element(value): 1.0}
        elif value == "(":
            stack.append({})
        elif len(stack) == 1 or not stack[-1]:
            raise ValueError("a bracket is closed that holds nothing or was not opened")
        else:
            last = stack.pop()
    if last is not None:
        _add(stack[-1], last)
    if len(stack) > 1:
        raise ValueError("a bracket is not closed")
    if not stack[0]:
        raise ValueError("a part of it holds no element")
    return stack[0]


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for symbol, amount in more.items():
        total[symbol] = total.get(symbol, 0.0) + amount


def element_hint(text: str) -> str:
    """What was probably meant by a text that is no element, as the end of a message; '' if unknown.

    >>> element_hint("Mm"), element_hint("LiMnO2")
    ('; did you mean Mn?', '; did you mean the system Li-Mn-O?')
    """
    if text in ("D", "T"):
        return "; hydrogen is H, whatever its isotope"
    text = unicodedata.normalize("NFKC", text)
    words = re.findall("[A-Z][a-z]?", text)
    if len(words) < 2:
        words = [word.capitalize() for word in re.split("[^A-Za-z]+", text) if word]
    if len(words) > 1 and ELEMENTS.issuperset(words):
        return f"; did you mean the system {'-'.join(dict.fromkeys(words))}?"
    near = min(_near(text.capitalize()), default=None)
    return f"; did you mean {near[-1]}?" if near else ""


def _near(symbol: str) -> Iterator[tuple[bool, float, int, str]]:
    """Elements one typing error away, ranked by first letter, distance of the keys, commonness."""
    for place, element in enumerate([*_COMMON, *sorted(ELEMENTS.difference(_COMMON))]):
        other = element[:1] != symbol[:1]
        if sorted(element.lower()) == sorted(symbol.lower()):
            yield False, 0.0, place, element
        elif len(element) == len(symbol) == 2:
            wrong = [(a, b) for a, b in zip(symbol.lower(), element.lower(), strict=True) if a != b]
            if len(wrong) == 1:
                (ax, ay), (bx, by) = (_KEYS.get(letter, (99.0, 99)) for letter in wrong[0])
                yield other, float(max(abs(ax - bx), abs(ay - by)) > 1.5), place, element
        elif symbol[:-1] == element or symbol == element[:-1]:
            yield other, 1.0, place, element


def _element(symbol: str) -> str:
    if symbol in ELEMENTS:
        return symbol
    if symbol in ("D", "T"):
        raise ValueError(f"{symbol} is an isotope of H, of the same energy here: write H")
    raise ValueError(f"{_shown(symbol)} is no element; symbols are written as in NaCl")


def _checked(amounts: dict[str, float]) -> dict[str, float]:
    total = sum(amounts.values())
    if not amounts:
        raise ValueError("it holds no element")
    if not (math.isfinite(total) and total <= MAX_ATOMS):
        raise ValueError(f"it has {total:g} atoms, limit {MAX_ATOMS:g}")
    for symbol, amount in amounts.items():
        if amount < MIN_SHARE * total:
            share = f"{amount / total:.1e}"
            raise ValueError(f"{symbol} is {share} of all atoms, below {MIN_SHARE:g}; leave it out")
    return amounts


def _shown(value: object) -> str:
    """A value for a message: short, and in plain ASCII."""
    try:
        text = str(value)
    except ValueError:  # an integer of thousands of digits
        text = type(value).__name__
    return ascii(text if len(text) <= 60 else text[:60] + "...")
