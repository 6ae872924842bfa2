"""A session with the Materials Project's server: retries, a daily cap of calls, and refusals.

urllib3 retries; this session bounds how often and how long, since mp-api's own three tries within a
second are too few for an overloaded server and too many for one that has blocked this machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urljoin

import requests
from pydantic import AwareDatetime, SecretStr, ValidationError
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidHeader, InvalidSchema, InvalidURL
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError, TimeoutError
from urllib3.util.retry import RequestHistory

from hullward.models.errors import FetchError
from hullward.tools.records import Record
from hullward.tools.reference.materials_project.stored import mp_folder
from hullward.tools.store import write_whole

CALLS_PER_DAY = 500
PATIENCE_S = 1200.0
TIMEOUT_S = 60.0  # without a byte
LONGEST_ANSWER_S = 900.0  # however steadily it trickles
MOST_BYTES = 2**28  # of an answer, unpacked; a page of 1,000 entries has some 30 MB
BACKOFF_S, LONGEST_WAIT_S = 2.0, 300.0  # between two tries; doubled before each retry
TRIES_WITHOUT_CONNECTION = 3  # more would hardly find a server
NO_CONNECTION = "no connection"
UNTRUSTED = (
    "its certificate is not trusted; set SSL_CERT_FILE to the file of the authority that signed it"
)
HOURS_AFTER_REFUSAL = 6.0  # a blocked machine that keeps asking stays blocked


class Access(NamedTuple):
    """How to reach the server. endpoint None: mp-api's own."""

    key: SecretStr | None
    home: Path
    endpoint: str | None = None
    calls_per_day: int = CALLS_PER_DAY  # of all processes with this home
    patience_s: float = PATIENCE_S  # the sum of all waits
    notes: Callable[[str], None] = lambda line: None
    sleep: Callable[[float], None] = time.sleep  # tests do not wait


class PoliteSession(requests.Session):
    """As requests.Session, with a daily cap of calls and long waits between tries.

    Raises FetchError from any request.
    """

    def __init__(self, access: Access, key: SecretStr) -> None:
        super().__init__()
        self.headers["x-api-key"] = key.get_secret_value()
        self._access, self._folder = access, mp_folder(access.home)
        self._refusal_file = self._folder / "refused.json"
        self._left_s = access.patience_s
        self._key_digest = hashlib.sha256(key.get_secret_value().encode()).hexdigest()[:16]
        self._check_refusal()
        self.retry = CountedRetry(
            total=None,  # patience_s bounds the tries
            status_forcelist={429, *range(500, 600)},
            backoff_factor=BACKOFF_S,
            backoff_jitter=1.0,
            backoff_max=LONGEST_WAIT_S,
            # urllib3 never waits before the first retry: this one counts as the second
            history=(RequestHistory(None, None, None, None, None),),
        )
        self.retry.session = self
        self.mount("https://", _TrustingAdapter(max_retries=self.retry))
        self.mount("http://", HTTPAdapter(max_retries=self.retry))

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """The whole answer. urllib3 hands the body over unread, so cut ones are retried here."""
        retry = self.retry
        while True:
            self.spend(1)
            try:
                whole = {"timeout": TIMEOUT_S, "stream": True}  # read here, up to a limit
                response = super().send(request, **{**kwargs, **whole})
                _read(response)
            except (InvalidSchema, InvalidURL, InvalidHeader) as error:
                raise FetchError(
                    f"the Materials Project cannot be asked: {' '.join(str(error).split())[:200]}; "
                    "check the endpoint and the proxies of the environment (a SOCKS proxy needs "
                    "`pip install pysocks`)"
                ) from None
            except requests.RequestException as error:
                trouble = f"no whole answer ({type(error).__name__})"
            else:
                if response.status_code in (401, 403):
                    self._refused(response.status_code)
                if response.status_code != 200 or response.content.rstrip().endswith((b"}", b"]")):
                    return response
                trouble = "an answer was cut short"
            retry = self.wait_after(retry, trouble)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where an answer redirects to; raises FetchError for another server, which gets nothing:
        neither the key, nor our belief in its answer.
        """
        target = super().get_redirect_target(resp)
        if target is None:
            return None
        old, new = str(resp.url), urljoin(str(resp.url), target)
        if self.should_strip_auth(old, new):  # type: ignore[no-untyped-call]
            raise FetchError(
                f"the Materials Project redirects to another server, {new[:200]!r}: not followed; "
                "nothing of this was stored"
            )
        _read(resp)
        return str(target)

    def wait_after(self, retry: CountedRetry, trouble: str) -> CountedRetry:
        """Wait after a failure that urllib3 did not see; the state of the retries from then on."""
        following = retry.increment(error=HTTPError(trouble))
        self.wait(following)
        return following

    def wait(self, retry: CountedRetry, response: BaseHTTPResponse | None = None) -> None:
        """Wait before the next try; raises FetchError where patience is over."""
        tries, trouble = len(retry.history) - 1, _trouble(retry.history[-1])
        asked_s = retry.get_retry_after(response) if response else None
        wait_s = retry.get_backoff_time() if asked_s is None else asked_s + random.uniform(0, 1)
        connected = trouble not in (NO_CONNECTION, UNTRUSTED)
        hopeless = trouble == UNTRUSTED or (not connected and tries >= TRIES_WITHOUT_CONNECTION)
        if hopeless or wait_s > self._left_s:
            asked = f"; it asks to wait {asked_s:.0f} s" if asked_s else ""
            raise FetchError(
                f"the Materials Project is out of reach: {trouble} ({tries} tries){asked}. Nothing "
                "of this was stored; try again later. What was fetched before stays usable"
            )
        self._left_s -= wait_s
        self._access.notes(f"Materials Project: {trouble}; trying again in {wait_s:.0f} s")
        self._access.sleep(wait_s)

    def spend(self, calls: int) -> None:
        """Count calls before they are made; raises FetchError where the day's cap is reached."""
        self._folder.mkdir(parents=True, exist_ok=True)
        today = datetime.now(UTC).date().isoformat()
        with (self._folder / "calls.json").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            try:
                known = json.loads(file.read())
                spent = known["calls"] if known["day"] == today else 0
            # a new file, or one cut short
            except (ValueError, KeyError, TypeError, RecursionError):
                spent = 0
            if spent + calls > self._access.calls_per_day:
                raise FetchError(
                    f"{spent} calls were made to the Materials Project today (UTC), the cap is "
                    f"{self._access.calls_per_day}; continue tomorrow, or set "
                    "HULLWARD_MP_CALLS_PER_DAY"
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
        refusal = Refusal(until=until, key_sha256=self._key_digest)
        write_whole(self._refusal_file, refusal.model_dump_json().encode())
        self._check_refusal()

    def _check_refusal(self) -> None:
        """Raise FetchError where this key was refused not long ago."""
        try:
            refusal = Refusal.model_validate_json(self._refusal_file.read_bytes())
        except (OSError, ValidationError):  # none, or one that cannot be read
            return
        if refusal.key_sha256 == self._key_digest and datetime.now(UTC) < refusal.until:
            raise FetchError(
                "the Materials Project refused (403): the key is not accepted, or this machine is "
                "blocked. Not asking again with this key before "
                f"{refusal.until:%Y-%m-%d %H:%M} UTC; check the key, and delete "
                f"{self._refusal_file} to try sooner"
            )


class Refusal(Record):
    """A 403 of the server, remembered so that no later run prolongs a block."""

    until: AwareDatetime
    key_sha256: str  # the first digits


class CountedRetry(Retry):
    """urllib3's retries, each waited for and counted by the session."""

    session: PoliteSession

    def new(self, **changes: Any) -> Self:
        following = super().new(**changes)
        following.session = self.session
        return following

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Self:
        if response is not None:
            response.close()  # else urllib3 reads the text of an error to its end
        return super().increment(method, url, response, *args, **kwargs)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        self.session.wait(self, response)
        self.session.spend(1)


class _TrustingAdapter(HTTPAdapter):
    """Trusts the authorities of the machine and of SSL_CERT_FILE beside those of requests."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = ssl.create_default_context()
        super().init_poolmanager(*args, **kwargs, ssl_context=context)


def _read(response: requests.Response) -> None:
    """Read the body; raises FetchError for one that is too long or takes too long."""
    if isinstance(response._content, bytes):  # read before, as a redirect or its end
        return
    parts, size = [], 0
    until = time.monotonic() + LONGEST_ANSWER_S
    for part in response.iter_content(2**16):
        parts.append(part)
        size += len(part)
        late = time.monotonic() > until
        if size > MOST_BYTES or late:
            response.close()
            why = f"is not over after {LONGEST_ANSWER_S:.0f} s" if late else "is no answer of its"
            raise FetchError(
                f"an answer of the Materials Project {why}: {size:,} bytes came, at most "
                f"{MOST_BYTES:,} are read; nothing of this was stored"
            )
    response._content = b"".join(parts)


def _trouble(last: RequestHistory) -> str:
    """What went wrong at a try, in words."""
    if last.status == 429:
        return "too many requests (429)"
    if last.status:
        return f"its server has an error ({last.status})"
    if type(last.error) is HTTPError:
        return str(last.error)
    if isinstance(last.error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(last.error):
        return UNTRUSTED
    late = isinstance(last.error, TimeoutError) and not isinstance(last.error, NewConnectionError)
    return f"no answer within {TIMEOUT_S:.0f} s" if late else NO_CONNECTION
