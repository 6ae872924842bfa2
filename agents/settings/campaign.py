"""Settings of a campaign and of a screening.

Precedence: command line, then environment (HULLWARD_…), then campaign file, then default.
`hullward.agents.settings.file` reads the file, `machine` the environment.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from math import comb
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from hullward.agents.settings.backends import ChatBackend, CrystalBackend, Strict
from hullward.models.devices import DEVICE_PATTERN
from hullward.tools.records import Protocol, stable_id
from hullward.tools.screening import Limits

MAX_SYSTEMS = 1000  # each needs its formulas and its hull
LARGEST_OXIDATION_STATE = 9

CrystalModelOperator = Literal[
    "de_novo", "elements", "formula", "space_group", "e_hull", "infill"
]  # ask the crystal model
InstructionOperator = Literal["mutation", "crossover"]  # ask a model that follows instructions
ConstructionOperator = Literal["substitution", "perturbation", "swap"]  # ask no model
OperatorName = Literal[CrystalModelOperator, InstructionOperator, ConstructionOperator]
BY_CRYSTAL_MODEL: tuple[str, ...] = get_args(CrystalModelOperator)
BY_INSTRUCTION: tuple[str, ...] = get_args(InstructionOperator)


class Budget(Strict):
    """When to stop; the first limit reached wins. Counts come first: they can be repeated."""

    cycles: int = Field(default=4, gt=0, le=1_000_000)
    proposals_per_cycle: int = Field(default=40, gt=0, le=100_000)
    relaxations: int | None = Field(default=None, gt=0)
    force_calls: int | None = Field(default=None, gt=0, description="checked between cycles")
    tokens: int | None = Field(default=None, gt=0, description="of language models, in and out")
    hours: float | None = Field(
        default=None, gt=0, description="wall time of all runs together; not repeatable"
    )


class Phonons(Strict):
    """The dynamical check at the end of a run; it changes no verdict."""

    top: int = Field(default=0, ge=0, le=10, description="entries of the short list; 0: none")
    max_atoms: int = Field(default=256, ge=1, description="of a supercell")
    force_calls: int = Field(default=5000, ge=1, description="of all cells together")


class SecondOpinionSettings(Strict):
    """Second opinion of another potential on the short list and the suspects, after a run."""

    potential: str
    top: int = Field(default=10, ge=1, le=1000, description="entries that should stand undisputed")
    margin_ev_per_atom: float = Field(default=0.05, gt=0, le=10)
    max_force_calls: int = Field(default=20_000, gt=0)


class Settings(Strict):
    """Settings of judging, for campaigns and screenings."""

    name: str
    potential: str = "chgnet-0.3.0"
    reference: str = "embedded"
    second_reference: str | None = Field(default=None, description="its heights are shown as well")
    disagreement_ev_per_atom: float = Field(default=0.1, gt=0, le=10)
    second_opinion: SecondOpinionSettings | None = None
    protocol: Protocol = Protocol()
    metastable_ev_per_atom: float = Field(default=0.1, ge=0, le=1)
    known_phases: Path | None = Field(
        default=None, description="a folder of your own CIFs, or a table of structures"
    )
    relax_known: bool = Field(default=False, description="also relax what matches a known phase")
    breaker_failures: int = Field(default=25, gt=0, description="failures in a row that end a run")
    max_atoms: int = Field(default=200, ge=1, le=500)
    phonons: Phonons = Phonons()
    seed: int = Field(default=0, ge=0)
    workers: int | None = Field(
        default=None, ge=0, le=1024, description="default: one a core, or one a GPU"
    )
    device: str | None = Field(
        default=None, pattern=DEVICE_PATTERN, description="auto, cpu, cuda or cuda:N; default: auto"
    )

    @field_validator("protocol")
    @classmethod
    def _relaxes(cls, protocol: Protocol) -> Protocol:
        if protocol.max_steps < 1:
            raise ValueError("max_steps must be at least 1: only relaxed structures are judged")
        return protocol

    @property
    def campaign_id(self) -> str:
        """Equal for equal settings, apart from those that change no result and folders of files."""
        aside = {"workers", "device", "goal", "stop_after", "breaker_failures", "phonons"}
        if self.second_reference is None:  # keeps ids of before this setting
            aside |= {"second_reference", "disagreement_ev_per_atom"}
        if self.second_opinion is None:
            aside |= {"second_opinion"}
        content = self._identity(aside)
        for key in content.keys() & {"known_phases", "seeds_from", "reference", "second_reference"}:
            content[key] = _without_folders(content[key])
        return stable_id("k", content)

    def _identity(self, aside: set[str]) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=aside)

    def limits(self) -> Limits:
        """The hard checks' limits."""
        return Limits(max_atoms=self.max_atoms)


StopAfter = Literal["parse", "valid", "novel", "relaxed", "judged"]


class Screening(Settings):
    """Proposals read from a file, judged without the agent."""

    input_name: str
    input_sha256: str
    stop_after: StopAfter = "judged"


class Campaign(Settings):
    """One goal, pursued over many cycles."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)
    goal: str = ""
    systems: tuple[str, ...] = Field(default=(), description="chemical systems, e.g. Li-Mn-O")
    elements: tuple[str, ...] = Field(default=(), description="a palette, instead of systems")
    exclude_elements: tuple[str, ...] = ()
    oxidation_states: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    require_charge_balance: bool = False
    min_elements: int = Field(default=2, ge=1)
    max_elements: int = Field(default=3, ge=1, le=7)
    min_atoms: int = Field(default=1, ge=1)
    max_atoms: int = Field(default=24, ge=1, le=200)
    seeds_from: tuple[Path, ...] = Field(default=(), description="earlier campaign directories")
    operators: tuple[OperatorName, ...] = ("substitution", "perturbation", "swap")
    crystal: CrystalBackend = CrystalBackend(word="nano")
    chat: ChatBackend = ChatBackend(word="rules")
    overlap: bool = Field(
        default=True, description="prepare the next cycle while relaxing this one"
    )
    budget: Budget = Budget()

    @field_validator("systems")
    @classmethod
    def _systems_are_element_lists(cls, systems: tuple[str, ...]) -> tuple[str, ...]:
        found = (_elements(_hyphenated(system).split("-")) for system in systems)
        return tuple("-".join(sorted(set(elements))) for elements in found)

    @field_validator("elements", "exclude_elements")
    @classmethod
    def _elements_are_real(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_elements(elements))

    @field_validator("oxidation_states")
    @classmethod
    def _states_of_real_elements(
        cls, states: dict[str, tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]]:
        _elements(states)
        for element, given in states.items():
            if any(abs(state) > LARGEST_OXIDATION_STATE for state in given):
                raise ValueError(f"{element} has no oxidation state {max(given, key=abs)}")
        return states

    @field_validator("operators")
    @classmethod
    def _each_operator_once(cls, operators: tuple[OperatorName, ...]) -> tuple[OperatorName, ...]:
        if not operators or len(set(operators)) != len(operators):
            raise ValueError(f"name each operator once, of: {', '.join(get_args(OperatorName))}")
        return operators

    @model_validator(mode="after")
    def _fits_together(self) -> Campaign:
        if bool(self.systems) == bool(self.elements):
            raise ValueError("give either `systems` or `elements` (a palette), not both")
        if self.max_elements < self.min_elements:
            raise ValueError(f"max_elements {self.max_elements} < min_elements {self.min_elements}")
        if self.max_atoms < max(self.min_atoms, self.min_elements):
            raise ValueError(f"max_atoms {self.max_atoms} leaves no room for a candidate")
        if clash := set(self.exclude_elements) & {e for s in self.systems for e in s.split("-")}:
            raise ValueError(
                f"{', '.join(sorted(clash))} both in `systems` and in `exclude_elements`"
            )
        sizes = range(self.min_elements, self.max_elements + 1)
        systems = sum(comb(len(palette), size) for palette in self.palettes for size in sizes)
        if systems > MAX_SYSTEMS:
            raise ValueError(
                f"{systems} chemical systems, more than {MAX_SYSTEMS}: name fewer elements, or "
                "lower max_elements"
            )
        if not self.target_systems:
            raise ValueError("no chemical system is left with these elements and limits")
        if self.crystal.absent and (
            unserved := [x for x in self.operators if x in BY_CRYSTAL_MODEL]
        ):
            raise ValueError(
                f"{', '.join(unserved)} need a crystal model: name one under `crystal:`, or leave "
                "them out of `operators`"
            )
        if self.variation_model is None and (
            unserved := [x for x in self.operators if x in BY_INSTRUCTION]
        ):
            raise ValueError(
                f"{', '.join(unserved)} need a model that follows instructions, not "
                f"{self.crystal.label}: name one under `chat:`, or a server under `crystal:`"
            )
        return self

    @property
    def variation_model(self) -> Literal["chat", "crystal"] | None:
        """The model that varies parents; not nano, which knows only its training prompts."""
        if not self.chat.absent:
            return "chat"
        return None if self.crystal.kind in ("none", "nano") else "crystal"

    @property
    def asks_crystal(self) -> bool:
        """Whether any operator asks the crystal model."""
        wanted = (*BY_CRYSTAL_MODEL, *(BY_INSTRUCTION if self.variation_model == "crystal" else ()))
        return any(name in wanted for name in self.operators)

    def _identity(self, aside: set[str]) -> dict[str, Any]:
        """Without models the content is that of versions before models."""
        content = super()._identity(aside | {"crystal", "chat", "overlap"})
        if self.budget.tokens is None:
            del content["budget"]["tokens"]
        if self.asks_crystal:
            content["crystal"] = self.crystal.identity()
        if not self.chat.absent:
            content["chat"] = self.chat.identity()
        return content

    @property
    def palettes(self) -> tuple[tuple[str, ...], ...]:
        """The element sets that proposals may draw from."""
        if self.systems:
            return tuple(tuple(system.split("-")) for system in self.systems)
        return (tuple(sorted(set(self.elements) - set(self.exclude_elements))),)

    @property
    def target_systems(self) -> tuple[str, ...]:
        """Every chemical system inside the palettes with an allowed number of elements."""
        from itertools import combinations

        found: dict[str, None] = {}
        for palette in self.palettes:
            for size in range(min(self.max_elements, len(palette)), self.min_elements - 1, -1):
                for members in combinations(sorted(palette), size):
                    found["-".join(members)] = None
        return tuple(found)

    def limits(self) -> Limits:
        """The limits of the hard checks, narrowed to this campaign."""
        return Limits(
            max_atoms=self.max_atoms,
            min_atoms=self.min_atoms,
            min_elements=self.min_elements,
            max_elements=self.max_elements,
            allowed_elements=frozenset(e for palette in self.palettes for e in palette),
            allowed_systems=tuple(frozenset(palette) for palette in self.palettes),
            require_charge_balance=self.require_charge_balance,
            allowed_oxidation_states=self.oxidation_states or None,
        )


def _elements(symbols: Any) -> list[str]:
    """The symbols, checked; raises ValueError naming the nearest real element."""
    from pymatgen.core import Element

    real = {e.symbol for e in Element}
    for symbol in symbols:
        if symbol not in real:
            raise ValueError(f"{symbol!r} is not an element{_hint(str(symbol), real)}")
    return list(symbols)


def _hint(symbol: str, real: set[str]) -> str:
    """What may have been meant by what is no element."""
    if symbol in ("D", "T"):
        return "; hydrogen is H, whatever its isotope"
    parts = re.findall("[A-Z][a-z]?", symbol)
    if len(parts) > 1 and "".join(parts) == symbol and real.issuperset(parts):
        return f"; did you mean the system {'-'.join(parts)}?"
    symbol = unicodedata.normalize("NFKC", symbol)
    near = difflib.get_close_matches(symbol.capitalize(), sorted(real), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _hyphenated(system: str) -> str:
    """The system as it is; raises ValueError where other dashes stand for hyphens."""
    plain = re.sub("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]", "-", system)
    if plain != system:
        raise ValueError(f"{system!r} has dashes: write hyphens, {plain}")
    return system


def _without_folders(value: Any) -> Any:
    """Paths, and references in files, by their last part."""
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    if isinstance(value, str) and "/" in value:
        return ("file:" if value.startswith("file:") else "") + Path(value).name
    return value
