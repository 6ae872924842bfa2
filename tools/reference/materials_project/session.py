"""A session with the Materials Project's server that counts its calls and knows when to stop.

mp-api retries three times within a second; a server that is overloaded or has blocked somebody
wants more patience than that, or none. Imported only when something is fetched.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr

from hullward.models.errors import FetchError
from hullward.tools.store import write_whole

TIMEOUT_S = 60.0  # without a byte
FIRST_WAIT_S, LONGEST_WAIT_S = 4.0, 300.0  # between two tries; doubled each time, then jittered
TRIES_WITHOUT_CONNECTION = 3  # nobody is there: no use in waiting for long
NO_CONNECTION = "no connection"
HOURS_AFTER_REFUSAL = 6.0  # a blocked machine that keeps asking stays blocked


class PoliteSession(requests.Session):
    """As requests.Session, with a cap of calls a day and long back-off; a refusal ends it.

    calls_per_day: shared by every process with this folder.  patience_s: how long to go on trying
    in all.  sleep: replaced in tests.  Raises FetchError from any request.
    """

    def __init__(
        self,
        folder: Path,
        key: SecretStr,
        *,
        calls_per_day: int,
        patience_s: float,
        notes: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        self.headers["x-api-key"] = key.get_secret_value()
        self._folder, self._calls_per_day = folder, calls_per_day
        self._left_s, self._notes, self._sleep = patience_s, notes, sleep
        self._key_digest = hashlib.sha256(key.get_secret_value().encode()).hexdigest()[:16]
        self._check_refusal()

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Ask until there is a whole answer, patience ends or the server refuses."""
        kwargs["timeout"] = TIMEOUT_S
        tries = 0
        while True:
            self.spend(1)
            retry_after_s: float | None = None
            try:
                response = super().request(method, url, *args, **kwargs)
            except requests.RequestException as error:
                trouble = _why_out_of_reach(error)
                if trouble == NO_CONNECTION and tries + 1 >= TRIES_WITHOUT_CONNECTION:
                    self._left_s = 0.0
            else:
                if response.status_code in (401, 403):
                    self._refused(response.status_code)
                trouble = _trouble(response)
                if not trouble:
                    return response
                retry_after_s = _retry_after_s(response)
            self.wait(tries, trouble, retry_after_s)
            tries += 1

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Whoever a redirect leads to does not get the key unless it is the same server."""
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]
        old, new = str(response.request.url), str(prepared_request.url)
        if self.should_strip_auth(old, new):  # type: ignore[no-untyped-call]
            prepared_request.headers.pop("x-api-key", None)

    def wait(self, tries: int, trouble: str, retry_after_s: float | None = None) -> None:
        """Wait before the next try; raises FetchError when patience is over."""
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**tries) * random.uniform(0.75, 1.25)
        if retry_after_s is not None:
            wait_s = retry_after_s + random.uniform(0, 1)
        if wait_s > self._left_s:
            asked = f"; it asks to wait {retry_after_s:.0f} s" if retry_after_s else ""
            raise FetchError(
                f"the Materials Project is out of reach: {trouble} ({tries + 1} tries){asked}. "
                "Nothing of this was stored; try again later. What was fetched before stays usable"
            )
        self._left_s -= wait_s
        self._notes(f"Materials Project: {trouble}; trying again in {wait_s:.0f} s")
        self._sleep(wait_s)

    def spend(self, calls: int) -> None:
        """Count calls before they are made; raises FetchError where the day's cap is reached."""
        self._folder.mkdir(parents=True, exist_ok=True)
        today = datetime.now(UTC).date().isoformat()
        with (self._folder / "calls.json").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            spent = _calls_on(today, file.read())
            if spent + calls > self._calls_per_day:
                raise FetchError(
                    f"{spent} calls were made to the Materials Project today (UTC), the cap is "
                    f"{self._calls_per_day}; go on tomorrow, or set HULLWARD_MP_CALLS_PER_DAY"
                )
            file.truncate(0)
            file.write(json.dumps({"day": today, "calls": spent + calls}))

    def _refused(self, status: int) -> None:
        """401: the key is bad. 403: bad too, or a block, which asking again prolongs."""
        if status == 401:
            raise FetchError(
                "the Materials Project does not accept the key in MP_API_KEY (401); copy it again "
                "from https://next-gen.materialsproject.org/api"
            )
        until = datetime.now(UTC) + timedelta(hours=HOURS_AFTER_REFUSAL)
        content = {"until": until.isoformat(timespec="seconds"), "key_sha256": self._key_digest}
        write_whole(self._refusal_file, json.dumps(content).encode())
        raise FetchError(self._refusal(until))

    def _check_refusal(self) -> None:
        try:
            content = json.loads(self._refusal_file.read_text(encoding="utf-8"))
            until = datetime.fromisoformat(content["until"])
            same_key = content["key_sha256"] == self._key_digest
        except (OSError, ValueError, KeyError, TypeError):  # none, or one that says nothing
            return
        if same_key and datetime.now(UTC) < until:
            raise FetchError(self._refusal(until))

    @property
    def _refusal_file(self) -> Path:
        return self._folder / "refused.json"

    def _refusal(self, until: datetime) -> str:
        return (
            "the Materials Project refused (403): the key is not accepted, or this machine is "
            f"blocked. Not asking again with this key before {until:%Y-%m-%d %H:%M} UTC; check the "
            f"key, and delete {self._refusal_file} to try sooner"
        )


def _calls_on(today: str, text: str) -> int:
    try:
        content = json.loads(text)
        return int(content["calls"]) if content["day"] == today else 0
    except (ValueError, KeyError, TypeError):  # a new file, or a cut one: the count starts again
        return 0


def _trouble(response: requests.Response) -> str:
    """What is wrong with an answer that asking again may mend; '' where it is to be used."""
    status = response.status_code
    if status == 429:
        return "it says there were too many requests (429)"
    if status >= 500:
        return f"its server has an error ({status})"
    if status == 200 and not response.content.rstrip().endswith((b"}", b"]")):
        return "an answer was cut short"
    return ""


def _why_out_of_reach(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_S:.0f} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "an answer was cut short"
    if isinstance(error, requests.ConnectionError):
        return NO_CONNECTION
    return f"{type(error).__name__}"


def _retry_after_s(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait, given as a number or as a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return max(0.0, (when - datetime.now(when.tzinfo or UTC)).total_seconds())
