"""Fetch whole chemical systems from the Materials Project through mp-api, each once.

The thermo type GGA_GGA+U is requested by name: mp-api's default is another, mixed hull. Every
answer is checked before it is stored; `stored` reads it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import combinations
from typing import Any, NamedTuple

from pydantic import SecretStr

from hullward.models.errors import FetchError, InputError
from hullward.tools.hull import split_chemsys
from hullward.tools.reference.materials_project.answers import (
    as_parquet,
    as_row,
    as_zstd_lines,
    check_entries,
    check_stable,
)
from hullward.tools.reference.materials_project.session import Access, PoliteSession
from hullward.tools.reference.materials_project.stored import (
    STABLE,
    THERMO_TYPE,
    Fetched,
    keep,
    manifests,
)
from hullward.tools.store import timestamp

MAX_ELEMENTS = 9  # 511 subsystems in one call: more do not fit in a URL
KEY_LENGTH = 32
_CRITERIA = {"thermo_types": [THERMO_TYPE]}
_COUNT_ONLY = {"thermo_types": THERMO_TYPE, "_limit": 1, "_fields": "material_id"}
_ABOUT = ["material_id", "thermo_type", "energy_per_atom"]  # of the document an entry comes from


class FetchResult(NamedTuple):
    """What a fetch stored, and what was stored before."""

    database_version: str
    fetched: tuple[Fetched, ...]
    already_here: tuple[str, ...]  # systems


def whole_systems(palettes: Iterable[Sequence[str]], max_elements: int) -> list[str]:
    """The systems to fetch so that each candidate of at most `max_elements` is within one.

    A palette of up to nine elements is one system. A larger one is split into groups of elements,
    so that few systems hold every choice of `max_elements`.

    >>> whole_systems([("Li", "Mn", "O")], 3)
    ['Li-Mn-O']
    """
    found: dict[str, None] = {}
    for palette in palettes:
        elements = sorted(set(palette))
        if len(elements) <= MAX_ELEMENTS:
            found["-".join(elements)] = None
            continue
        size = max(1, MAX_ELEMENTS // max_elements)
        groups = [elements[i : i + size] for i in range(0, len(elements), size)]
        for chosen in combinations(groups, min(max_elements, len(groups))):
            found["-".join(sorted(el for group in chosen for el in group))] = None
    systems = [frozenset(s.split("-")) for s in found]
    return [s for s, own in zip(found, systems, strict=True) if not any(own < o for o in systems)]


def fetch_systems(systems: Sequence[str], access: Access) -> FetchResult:
    """Fetch whole systems of the server's present database version, each once.

    Each system is stored once it is complete and checked. Raises InputError for a name that is no
    system or a system too large for one call, and FetchError with one line for everything else.
    """
    wanted = ["-".join(sorted(split_chemsys(system))) for system in systems]
    if large := [s for s in wanted if s.count("-") >= MAX_ELEMENTS]:
        raise InputError(f"{large[0]} has more than {MAX_ELEMENTS} elements; fetch parts of it")
    with _Client(access) as client:
        held = [frozenset(m.system.split("-")) for m in manifests(access.home, client.version)]
        fetched, here = [], []
        for system in dict.fromkeys(wanted):
            if any(frozenset(system.split("-")) <= whole for whole in held):
                here.append(system)
                continue
            manifest = client.system(system)
            fetched.append(manifest)
            held.append(frozenset(system.split("-")))
    return FetchResult(client.version, tuple(fetched), tuple(here))


def fetch_stable(access: Access) -> FetchResult:
    """Fetch formulas and formation energies of the stable phases of the whole database."""
    with _Client(access) as client:
        if any(m.system == STABLE for m in manifests(access.home, client.version)):
            return FetchResult(client.version, (), (STABLE,))
        return FetchResult(client.version, (client.stable(),), ())


class _Client:
    """An open connection; entering imports mp-api and contacts the server."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def __enter__(self) -> _Client:
        key = _checked(self._access.key)
        from mp_api.client.core.utils import validate_endpoint

        self._session = PoliteSession(self._access, key)
        self._endpoint: str = validate_endpoint(self._access.endpoint)
        self.version = self._database_version()
        self._rester = _rester(key, self._endpoint, self._session)
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def _database_version(self) -> str:
        """The server's database version; mp-api requests it without a time limit and caches it."""
        try:
            found = self._session.get(self._endpoint + "heartbeat").json().get("db_version")
        except (ValueError, AttributeError, RecursionError):
            found = None
        if not found or not isinstance(found, str):
            raise FetchError(
                f"{self._endpoint} does not give its database version: it is no server of the "
                "Materials Project, or a proxy answers in its place"
            )
        return found

    def system(self, system: str) -> Fetched:
        """Fetch, check and store one whole system."""
        parts = system.split("-")
        names = [
            "-".join(part) for n in range(1, len(parts) + 1) for part in combinations(parts, n)
        ]
        with _requesting(f"system {system}"):
            count = self._rester.materials.thermo.count({"chemsys": ",".join(names), **_COUNT_ONLY})
            entries = self._rester.get_entries_in_chemsys(
                parts, additional_criteria=_CRITERIA, property_data=_ABOUT
            )
        rows = [as_row(entry) for entry in entries]
        check_entries(system, rows, count)
        return self._keep(system, as_zstd_lines(rows), count)

    def stable(self) -> Fetched:
        """Fetch, check and store the stable phases of the whole database."""
        fields = ["material_id", "formula_pretty", "energy_per_atom", "formation_energy_per_atom"]
        with _requesting("the stable phases"):
            count = self._rester.materials.thermo.count({"is_stable": True, **_COUNT_ONLY})
            rows = self._rester.materials.thermo.search(
                is_stable=True, fields=fields, all_fields=False, **_CRITERIA
            )
        check_stable(rows, count)
        return self._keep(STABLE, as_parquet(rows), count)

    def _keep(self, system: str, content: bytes, count: int) -> Fetched:
        if (now := self._database_version()) != self.version:
            raise FetchError(
                f"the Materials Project changed from database version {self.version} to {now} "
                f"while {system} was fetched; nothing of it was stored, fetch it again"
            )
        manifest = Fetched(
            database_version=self.version,
            thermo_type=THERMO_TYPE,
            system=system,
            mp_api_version=version("mp-api"),
            fetched=timestamp(),
            count=count,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        keep(self._access.home, manifest, content)
        return manifest


def _checked(key: SecretStr | None) -> SecretStr:
    """The key, if it can be one. It is never part of a message."""
    where = "get one at https://next-gen.materialsproject.org/api"
    if key is None:
        raise FetchError(f"no key for the Materials Project: set MP_API_KEY ({where})")
    if (length := len(key.get_secret_value())) != KEY_LENGTH:
        raise FetchError(
            f"the key for the Materials Project in MP_API_KEY has {length} characters, a key has "
            f"{KEY_LENGTH}: copy it again, or {where}"
        )
    if not (key.get_secret_value().isascii() and key.get_secret_value().isprintable()):
        raise FetchError(
            "the key for the Materials Project in MP_API_KEY holds a character that is no plain "
            f"ASCII: copy it again, or {where}"
        )
    return key


def _rester(key: SecretStr, endpoint: str, session: PoliteSession) -> Any:
    """mp-api's client on our session; it requests the heartbeat twice without the session."""
    from mp_api.client import MPRester

    retry = session.retry
    for _ in range(3):
        session.spend(2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # our own checks cover these warnings
                return MPRester(
                    api_key=key.get_secret_value(),
                    endpoint=endpoint,
                    session=session,
                    use_document_model=False,
                    mute_progress_bars=True,
                )
        except (OSError, ValueError, KeyError, RecursionError) as error:
            trouble = f"mp-api could not open a session ({type(error).__name__})"
            retry = session.wait_after(retry, trouble)
    raise FetchError(f"mp-api could not open a session with {endpoint}; try again later")


@contextmanager
def _requesting(what: str) -> Iterator[None]:
    """Turn errors of mp-api into a FetchError of one line that names the request."""
    from mp_api.client.core.exceptions import MPRestError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FetchError as error:
        raise FetchError(f"{what}: {error}") from None
    except MPRestError as error:
        answer = " ".join(str(error).split())[:200]
        raise FetchError(f"{what}: the Materials Project does not answer this: {answer}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FetchError(
            f"{what}: mp-api {version('mp-api')} does not understand the answer "
            f"({type(error).__name__}: {str(error)[:120]}); nothing was stored"
        ) from None
