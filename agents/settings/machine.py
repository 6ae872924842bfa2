"""Settings from the environment. No other module reads the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hullward.models.devices import DEVICE_PATTERN, torch_devices
from hullward.models.errors import InputError
from hullward.tools.relax import Executor


class Machine(BaseSettings):
    """Settings from the environment. Keys are secrets: nothing prints them."""

    model_config = SettingsConfigDict(env_prefix="HULLWARD_", extra="ignore", frozen=True)

    workers: Annotated[int | None, Field(ge=0)] = None
    device: Annotated[str | None, Field(pattern=DEVICE_PATTERN)] = None
    home: Path = Field(default_factory=lambda: Path.home() / ".local" / "share" / "hullward")
    cache: bool = True
    mp_calls_per_day: Annotated[int, Field(gt=0)] = 500  # to the Materials Project, all processes
    vllm_python: str | None = None  # the interpreter that has vLLM; it needs none of ours
    chat_api_key: SecretStr | None = None  # of the servers that `chat:` and `crystal:` name
    crystal_api_key: SecretStr | None = None

    @field_validator("chat_api_key", "crystal_api_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        return _sendable(key.get_secret_value()) if key else key

    @property
    def home_folder(self) -> Path:
        """The folder of references and of all that campaigns share, with or without the cache."""
        try:
            return self.home.expanduser()
        except RuntimeError as error:
            raise InputError(f"environment variable HULLWARD_HOME: {error}") from None

    @property
    def cache_home(self) -> Path | None:
        """The folder of the shared relaxation cache; None with HULLWARD_CACHE=false."""
        return self.home_folder if self.cache else None

    @property
    def mp_api_key(self) -> SecretStr | None:
        """The Materials Project key: MP_API_KEY, else pymatgen's own setting, as mp-api does."""
        key = os.environ.get("MP_API_KEY") or os.environ.get("PMG_MAPI_KEY")
        if not key:
            from pymatgen.core import SETTINGS

            key = SETTINGS.get("PMG_MAPI_KEY")
        try:
            return _sendable(str(key)) if key else None
        except ValueError as error:
            raise InputError(f"environment variable MP_API_KEY: {error}") from None

    @property
    def mp_endpoint(self) -> str | None:
        """The address of the Materials Project from MP_API_ENDPOINT; None: mp-api's default."""
        return os.environ.get("MP_API_ENDPOINT") or None

    @property
    def thread_variables(self) -> dict[str, str | None]:
        """The thread limits that numerical libraries obey."""
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return {name: os.environ.get(name) for name in names}

    def device_for(self, campaign: str | None = None) -> str:
        """The torch device: command line, environment, campaign file, else 'auto'.

        Raises InputError for a device by name that is not there.
        """
        device = self.device or campaign or "auto"
        if device not in ("auto", "cpu"):
            torch_devices(device)
        return device

    def executor(
        self, workers: int | None = None, *, of: tuple[int | None, str | None] = (None, None)
    ) -> Executor:
        """Where relaxations run. `workers` is the command line's; of: the campaign's of both.

        Raises as `device_for`.
        """
        choices = (workers, self.workers, of[0])
        chosen = next((choice for choice in choices if choice is not None), None)
        return Executor(workers=chosen, device=self.device_for(of[1]), home=self.cache_home)

    def workers_for(self, asked: int | None, campaign: int | None) -> int:
        """Worker processes: command line, environment, campaign file, else one a usable core."""
        for choice in (asked, self.workers, campaign):
            if choice is not None:
                return choice
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _sendable(key: str) -> SecretStr:
    """A key without spaces around it; raises ValueError for one that no request can carry."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("a key has letters, digits and signs of ASCII only; copy it again")
    return SecretStr(key)


def read_machine(device: str | None = None) -> Machine:
    """Read the environment; raises InputError for a HULLWARD_ variable with a wrong value.

    device: the command line's, which comes before the environment's.
    """
    if device is not None and not re.fullmatch(DEVICE_PATTERN, device):
        raise InputError(f"--device {device!r}: write auto, cpu, cuda, cuda:N or mps")
    try:
        return Machine() if device is None else Machine(device=device)
    except ValidationError as error:
        first = error.errors()[0]
        name = "HULLWARD_" + "_".join(str(x) for x in first["loc"]).upper()
        raise InputError(f"environment variable {name}: {first['msg']}") from error
