"""The names of interatomic potentials, their cards, and how to load them.

A card costs a file hash and no heavy import. CHGNet's weights come only from the pinned `chgnet`
wheel: unpickling a checkpoint runs code, so the hash of the file is checked before it is opened.
Other potentials are packages the user trusts; a calibrator compares their hashes.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hullward.models.errors import InputError, PreflightError
from hullward.models.potential.ase import KNOWN, ase_card, is_ase, load_ase
from hullward.models.potential.protocol import Potential, PotentialCard, file_sha256

# The 89 elements of the Materials Project and so of MPtrj, on which CHGNet was trained
# (DOI 10.1038/s42256-023-00716-3). Z <= 94 without Po, At, Rn, Fr and Ra: their
# embeddings are still random. He, Ne and Ar occur, in very few structures.
_MPTRJ_SYMBOLS = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm
Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Ac Th Pa U Np Pu"""
MPTRJ_ELEMENTS = frozenset(_MPTRJ_SYMBOLS.split())


@dataclass(frozen=True)
class _KnownPotential:
    card: PotentialCard
    load: Callable[[PotentialCard, str], Potential]
    weights: str | None = None  # path inside the chgnet package
    takes_device: bool = True


def _load_chgnet(card: PotentialCard, device: str) -> Potential:
    from hullward.models.potential.chgnet import ChgnetPotential

    return ChgnetPotential(card, _weights_path(card.name), device)


def _load_plain_chgnet(card: PotentialCard, device: str) -> Potential:
    from hullward.models.potential.chgnet_plain import PlainChgnet

    # the bias existed only in this version
    return PlainChgnet(card, _weights_path(card.name), device, mlp_out_bias=True)


def _second_opinion_card(version: str, sha256: str) -> PotentialCard:
    """Another checkpoint of the wheel, with an energy scheme of its own: for second opinions."""
    return PotentialCard(
        name=f"chgnet-{version}",
        weights_sha256=sha256,
        energy_scheme=f"own:chgnet-{version}",
        elements=MPTRJ_ELEMENTS,
        typical_error_ev_per_atom=None,
        typical_error_source="not stated for distances to the hull",
    )


def _load_toy(card: PotentialCard, device: str) -> Potential:
    from hullward.models.potential.toy import ToyPotential

    del device  # numpy only
    return ToyPotential(card)


_CATALOGUE = {
    entry.card.name: entry
    for entry in (
        _KnownPotential(
            PotentialCard(
                name="chgnet-0.3.0",
                weights_sha256="d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1",
                energy_scheme="mp2020-corrected",
                elements=MPTRJ_ELEMENTS,
                typical_error_ev_per_atom=0.063,
                typical_error_source=(
                    "Matbench Discovery, CHGNet 0.3.0: mean absolute error of the distance to "
                    "the hull over the unique prototypes of WBM (DOI 10.1038/s42256-025-01055-1)"
                ),
            ),
            _load_chgnet,
            "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        ),
        _KnownPotential(
            _second_opinion_card(
                "0.2.0", "ef624f78b6db9d315b4ef256f1bb3207449924191b91720dc17d3f60c5df980e"
            ),
            _load_plain_chgnet,
            "pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
        ),
        _KnownPotential(
            _second_opinion_card(
                "r2scan", "8eba3db0f35a2788bb3ae22885ad340591e27996f213c6643af522a633b50dad"
            ),
            _load_chgnet,
            "pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
        ),
        _KnownPotential(
            PotentialCard(
                name="toy",
                weights_sha256=hashlib.sha256(
                    b"hullward toy Morse potential, version 1"
                ).hexdigest(),
                energy_scheme="toy",
                elements=MPTRJ_ELEMENTS,
                typical_error_ev_per_atom=0.0,
                typical_error_source="none: a made-up world for tests, its own truth",
            ),
            _load_toy,
            takes_device=False,
        ),
    )
}


def potential_names() -> tuple[str, ...]:
    """The names a campaign file may use, apart from ASE calculators."""
    return tuple(_CATALOGUE)


def potential_card(name: str) -> PotentialCard:
    """The card of a potential, its weight file checked.

    Raises InputError for an unknown name and PreflightError when the weight file is absent or is
    not the one this card describes.
    """
    if is_ase(name):
        return ase_card(name, MPTRJ_ELEMENTS)
    entry = _entry(name)
    if entry.weights is not None:
        path = _weights_path(name)
        found = file_sha256(path)
        if found != entry.card.weights_sha256:
            raise PreflightError(
                f"the weights of {name} at {path} are not the published ones "
                f"(sha256 {found[:12]}…, expected {entry.card.weights_sha256[:12]}…); "
                "reinstall them: pip install --force-reinstall --no-deps chgnet==0.4.2"
            )
    return entry.card


def load_potential(name: str, device: str = "cpu") -> Potential:
    """A potential ready to evaluate, on a torch device: 'cpu', 'cuda', 'cuda:1', …

    Raises as `potential_card`: nothing is unpickled before the hash is known to be right.
    """
    card = potential_card(name)
    if is_ase(name):
        return load_ase(card, device)
    return _entry(name).load(card, device)


def takes_device(name: str) -> bool:
    """Whether a potential can be loaded on a torch device; a calculator by its path chooses itself.

    Raises InputError for an unknown name.
    """
    return name in KNOWN or (not is_ase(name) and _entry(name).takes_device)


def _entry(name: str) -> _KnownPotential:
    try:
        return _CATALOGUE[name]
    except KeyError:
        near = difflib.get_close_matches(name, _CATALOGUE, n=1, cutoff=0.3)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(
            f"no potential is called '{name}'; {hint}known: {', '.join(_CATALOGUE)}, "
            f"{', '.join(KNOWN)}, or ase:MODULE:FACTORY for any ASE calculator"
        ) from None


def _weights_path(name: str) -> Path:
    spec = find_spec("chgnet")
    if spec is None or not spec.submodule_search_locations:
        raise PreflightError(f"{name} needs the package chgnet: pip install chgnet==0.4.2")
    path = Path(spec.submodule_search_locations[0]) / str(_entry(name).weights)
    if not path.is_file():
        raise PreflightError(
            f"the weights of {name} are missing at {path}; reinstall them: "
            "pip install --force-reinstall --no-deps chgnet==0.4.2"
        )
    return path
