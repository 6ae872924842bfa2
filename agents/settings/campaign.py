"""Settings of a campaign and of a screening.

Precedence: command line, then environment (HULLWARD_…), then campaign file, then default.
`hullward.agents.settings.file` reads the file, `machine` the environment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, PrivateAttr, field_validator, model_validator

from hullward.agents.settings.backends import ChatBackend, CrystalBackend, Strict
from hullward.agents.settings.differences import differing, without_folders
from hullward.agents.settings.systems import read_system, real_elements
from hullward.models.devices import DEVICE_PATTERN
from hullward.tools.records import Protocol, stable_id
from hullward.tools.screening import Limits

MAX_SYSTEMS = 1000  # each needs its formulas and its hull
LARGEST_OXIDATION_STATE = 9
MOST_ELEMENTS = 7  # of a candidate
SIZES_OF_A_PALETTE = (2, 3)  # fewest and most elements of a candidate from `elements`
# Of version 0.1: a directory begun with one of them goes on with it where the file gives no other.
EARLIER_DEFAULTS = {"min_elements": 2, "max_elements": 3, "max_atoms": 24}

CrystalModelOperator = Literal[
    "de_novo", "elements", "formula", "space_group", "e_hull", "infill"
]  # ask the crystal model
InstructionOperator = Literal["mutation", "crossover"]  # ask a model that follows instructions
ConstructionOperator = Literal["substitution", "perturbation", "swap"]  # ask no model
OperatorName = Literal[CrystalModelOperator, InstructionOperator, ConstructionOperator]
BY_CRYSTAL_MODEL: tuple[str, ...] = get_args(CrystalModelOperator)
BY_PARENT = ("infill", "mutation", "crossover", "perturbation", "swap")  # of what is there
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

    def holds(self, before: Budget) -> bool:
        """Whether no limit is lower than it was before."""
        now = self.model_dump()
        return all(
            now[key] == limit or (limit is not None and (now[key] is None or now[key] > limit))
            for key, limit in before.model_dump().items()
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
        return stable_id("k", self._content())

    def differences(self, begun: Settings) -> list[str]:
        """'KEY: VALUE there, VALUE here' of every setting that makes this another campaign."""
        return differing(begun._content(), self._content())

    def _content(self) -> dict[str, Any]:
        """All that makes it this campaign."""
        aside = {"workers", "device", "goal", "stop_after", "breaker_failures", "phonons"}
        if self.second_reference is None:  # keeps ids of before this setting
            aside |= {"second_reference", "disagreement_ev_per_atom"}
        if self.second_opinion is None:
            aside |= {"second_opinion"}
        content = self._identity(aside)
        for key in content.keys() & {"known_phases", "seeds_from", "reference", "second_reference"}:
            content[key] = without_folders(content[key])
        return content

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
    systems: tuple[str, ...] = Field(
        default=(), description="chemical systems, e.g. Li-Mn-O, as the user orders their elements"
    )
    elements: tuple[str, ...] = Field(default=(), description="a palette, instead of systems")
    exclude_elements: tuple[str, ...] = ()
    oxidation_states: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    require_charge_balance: bool = False
    min_elements: int | None = Field(
        default=None, ge=1, description="default: as many as the system has; of a palette 2"
    )
    max_elements: int | None = Field(
        default=None, ge=1, le=MOST_ELEMENTS, description="default: as many as the system; 3"
    )
    min_atoms: int = Field(default=1, ge=1)
    max_atoms: int = Field(default=40, ge=1, le=200)
    seeds_from: tuple[Path, ...] = Field(default=(), description="earlier campaign directories")
    operators: tuple[OperatorName, ...] = ("substitution", "perturbation", "swap")
    crystal: CrystalBackend = CrystalBackend(word="nano")
    chat: ChatBackend = ChatBackend(word="rules")
    overlap: bool = Field(
        default=True, description="prepare the next cycle while relaxing this one"
    )
    budget: Budget = Budget()
    _first_budget: Budget | None = PrivateAttr(None)  # where it was raised since

    @field_validator("systems", "elements", "exclude_elements", "operators", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return tuple(re.split(r"\s*,\s*", value.strip())) if isinstance(value, str) else value

    @field_validator("systems")
    @classmethod
    def _systems_are_element_lists(cls, systems: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(read_system(system) for system in systems)

    @field_validator("elements", "exclude_elements")
    @classmethod
    def _elements_are_real(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(real_elements(elements))

    @field_validator("oxidation_states")
    @classmethod
    def _states_of_real_elements(
        cls, states: dict[str, tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]]:
        real_elements(states)
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
        if (
            self.min_elements is not None
            and self.max_elements is not None
            and self.max_elements < self.min_elements
        ):
            raise ValueError(f"max_elements {self.max_elements} < min_elements {self.min_elements}")
        sizes = [self.sizes(palette) for palette in self.palettes]
        if most := [
            len(p) for p, s in zip(self.palettes, sizes, strict=True) if s[1] > MOST_ELEMENTS
        ]:
            raise ValueError(
                f"a system of {max(most)} elements, more than {MOST_ELEMENTS}: name fewer, or give "
                "min_elements and max_elements of a candidate"
            )
        if self.max_atoms < max(self.min_atoms, *(fewest for fewest, _ in sizes)):
            raise ValueError(f"max_atoms {self.max_atoms} leaves no room for a candidate")
        if clash := set(self.exclude_elements) & {e for s in self.systems for e in s.split("-")}:
            raise ValueError(
                f"{', '.join(sorted(clash))} both in `systems` and in `exclude_elements`"
            )
        systems = sum(
            comb(len(palette), size)
            for palette, (fewest, most) in zip(self.palettes, sizes, strict=True)
            for size in range(fewest, most + 1)
        )
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
    def perturbs_phases(self) -> bool:
        """Whether known phases are perturbed: only where nothing else begins without parents."""
        return all(name in BY_PARENT for name in self.operators)

    @property
    def asks_crystal(self) -> bool:
        """Whether any operator asks the crystal model."""
        wanted = (*BY_CRYSTAL_MODEL, *(BY_INSTRUCTION if self.variation_model == "crystal" else ()))
        return any(name in wanted for name in self.operators)

    def _identity(self, aside: set[str]) -> dict[str, Any]:
        """Without models the content is that of versions before models."""
        content = super()._identity(aside | {"crystal", "chat", "overlap"})
        if self._first_budget is not None:
            content["budget"] = self._first_budget.model_dump(mode="json")
        if content["budget"]["tokens"] is None:
            del content["budget"]["tokens"]
        content["systems"] = ["-".join(sorted(system.split("-"))) for system in self.systems]
        if len({self.sizes(palette) for palette in self.palettes}) == 1:
            content["min_elements"], content["max_elements"] = self.sizes(self.palettes[0])
        if self.asks_crystal:
            content["crystal"] = self.crystal.identity()
        if not self.chat.absent:
            content["chat"] = self.chat.identity()
        return content

    @property
    def palettes(self) -> tuple[tuple[str, ...], ...]:
        """The element sets that proposals may draw from."""
        if self.systems:
            return tuple(tuple(sorted(system.split("-"))) for system in self.systems)
        return (tuple(sorted(set(self.elements) - set(self.exclude_elements))),)

    @property
    def target_systems(self) -> tuple[str, ...]:
        """Every chemical system inside the palettes with an allowed number of elements."""
        from itertools import combinations

        found: dict[str, None] = {}
        for palette in self.palettes:
            fewest, most = self.sizes(palette)
            for size in range(min(most, len(palette)), fewest - 1, -1):
                for members in combinations(sorted(palette), size):
                    found["-".join(members)] = None
        return tuple(found)

    def sizes(self, palette: Sequence[str]) -> tuple[int, int]:
        """Fewest and most elements of a candidate from a palette: by default all of a system."""
        if self.systems:
            fewest, most = max(2, len(palette)), len(palette)
        else:
            fewest, most = SIZES_OF_A_PALETTE
        if self.min_elements is not None:
            fewest, most = self.min_elements, max(self.min_elements, most)
        if self.max_elements is not None:
            fewest, most = min(fewest, self.max_elements), self.max_elements
        return fewest, most

    @property
    def fewest_elements(self) -> int:
        """Of a candidate, whatever its palette."""
        return min(self.sizes(palette)[0] for palette in self.palettes)

    @property
    def most_elements(self) -> int:
        """Of a candidate, whatever its palette."""
        return max(self.sizes(palette)[1] for palette in self.palettes)

    def goes_on_from(self, begun: Campaign) -> Campaign:
        """These settings in the directory where `begun` began.

        What the file leaves out and had another default in version 0.1 stays as it was there, and
        a budget that is only raised keeps the campaign's id.
        """
        stay = {
            key: value
            for key, value in EARLIER_DEFAULTS.items()
            if key not in self.model_fields_set and getattr(begun, key) == value
        }
        same = self.model_copy(update=stay)
        if self.budget.holds(begun.budget):
            same._first_budget = begun._first_budget or begun.budget
        return same

    def with_budget(self, budget: Budget) -> Campaign:
        """The same campaign with a budget that was raised since it began."""
        same = self.model_copy(update={"budget": budget})
        same._first_budget = self._first_budget or self.budget
        return same

    def limits(self) -> Limits:
        """The limits of the hard checks, narrowed to this campaign."""
        return Limits(
            max_atoms=self.max_atoms,
            min_atoms=self.min_atoms,
            min_elements=self.fewest_elements,
            max_elements=self.most_elements,
            allowed_elements=frozenset(e for palette in self.palettes for e in palette),
            allowed_systems=tuple(frozenset(palette) for palette in self.palettes),
            whole_systems=bool(self.systems) and self.min_elements is self.max_elements is None,
            require_charge_balance=self.require_charge_balance,
            allowed_oxidation_states=self.oxidation_states or None,
        )
