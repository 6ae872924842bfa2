"""A server on this machine that answers as the Materials Project does, for tests.

It answers the requests of mp-api: the heartbeat, and thermo documents by chemical system, formula
or stability, in pages. Each fault in its queue spoils one answer.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from hullward.models.crystal import Crystal

KEY = "0123456789abcdef0123456789ABCDEF"  # the only one it accepts
EMMET_VERSION = "0.87.3"
POLL_S = 0.01  # between checks whether to stop


class Fault(NamedTuple):
    """How one answer is spoiled. kind 'cut': half of its text; 'short': half of its documents;
    'raw': these bytes in place of status, headers and body; they may be endless.
    """

    kind: str  # 'status', 'cut', 'short' or 'raw'
    status: int = 200
    retry_after: str | None = None
    path: str = "thermo"  # of requests whose path holds this
    location: str | None = None  # of a redirect
    raw: Callable[[], Iterable[bytes]] = tuple


def thermo_document(
    material_id: str,
    crystal: Crystal,
    energy_ev_per_atom: float,
    *,
    formation_ev_per_atom: float = 0.0,
    is_stable: bool = False,
    correction_ev: float = 0.0,
    run_type: str = "GGA",
    thermo_type: str = "GGA_GGA+U",
) -> dict[str, Any]:
    """A document as the server has it: energy_ev_per_atom corrected, correction_ev of the cell."""
    counts = crystal.amounts
    uncorrected_ev = energy_ev_per_atom * crystal.n_atoms - correction_ev
    entry = {
        "@module": "pymatgen.entries.computed_entries",
        "@class": "ComputedStructureEntry",
        "entry_id": f"{material_id}-{run_type}",
        "energy": uncorrected_ev,
        "composition": counts,
        "correction": correction_ev,
        "energy_adjustments": _adjustments(correction_ev),
        "parameters": {"run_type": run_type},
        "data": {"material_id": material_id, "run_type": run_type},
        "structure": crystal.to_structure().as_dict(),
    }
    return {
        "material_id": material_id,
        "chemsys": crystal.chemsys,
        "formula_pretty": crystal.composition.reduced_formula,
        "thermo_type": thermo_type,
        "energy_per_atom": energy_ev_per_atom,
        "uncorrected_energy_per_atom": uncorrected_ev / crystal.n_atoms,
        "formation_energy_per_atom": formation_ev_per_atom,
        "is_stable": is_stable,
        "entries": {run_type: entry},
    }


def _adjustments(correction_ev: float) -> list[dict[str, Any]]:
    if not correction_ev:
        return []
    return [
        {
            "@module": "pymatgen.entries.computed_entries",
            "@class": "ConstantEnergyAdjustment",
            "value": correction_ev,
            "uncertainty": 0.0,
            "name": "MP2020 anion correction (oxide)",
            "cls": {},
            "description": "Constant energy adjustment",
        }
    ]


class MaterialsProjectDouble:
    """The server, in a `with` block. `requests` records (path, parameters) of each call."""

    def __init__(self, documents: Iterable[Mapping[str, Any]] = ()) -> None:
        self.documents = [dict(document) for document in documents]
        self.database_version = "2025.09.25"
        self.faults: deque[Fault] = deque()
        self.miscounted = 0  # added to every count
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.keys: list[str | None] = []  # that came with them
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                double._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> MaterialsProjectDouble:
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def paths(self) -> list[str]:
        """The paths of all requests so far."""
        return [path for path, _ in self.requests]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        parameters = {key: values[0] for key, values in parse_qs(address.query).items()}
        self.requests.append((address.path, parameters))
        self.keys.append(handler.headers.get("x-api-key"))
        fault = None
        if self.faults and self.faults[0].path in address.path:
            fault = self.faults.popleft()
        if fault is not None and fault.kind == "status":
            given = {"Retry-After": fault.retry_after, "Location": fault.location}
            headers = {name: value for name, value in given.items() if value}
            return _send(handler, fault.status, {"detail": f"fault {fault.status}"}, headers)
        if fault is not None and fault.kind == "raw":
            handler.close_connection = True
            try:
                handler.wfile.writelines(fault.raw())
            except OSError:
                return None  # it was not read to its end
            return None
        if address.path == "/heartbeat":
            return _send(handler, 200, self._heartbeat())
        if handler.headers.get("x-api-key") != KEY:
            return _send(handler, 401, {"message": "Invalid authentication credentials"})
        if address.path != "/materials/thermo/":
            return _send(handler, 404, {"detail": "Not Found"})
        found = [document for document in self.documents if _matches(document, parameters)]
        start, limit = int(parameters.get("_skip", 0)), int(parameters.get("_limit", 100))
        page = [
            _only(document, parameters.get("_fields")) for document in found[start : start + limit]
        ]
        if fault is not None and fault.kind == "short":
            page = page[: len(page) // 2]
        answer = {"data": page, "meta": {"total_doc": len(found) + self.miscounted}}
        return _send(handler, 200, answer, cut=fault is not None and fault.kind == "cut")

    def _heartbeat(self) -> dict[str, Any]:
        return {
            "status": "OK",
            "version": EMMET_VERSION,
            "db_version": self.database_version,
            "access_controlled_batch_ids": [],
        }


def _matches(document: Mapping[str, Any], parameters: Mapping[str, str]) -> bool:
    def among(key: str, value: str) -> bool:
        return key not in parameters or value in parameters[key].split(",")

    return (
        among("thermo_types", document["thermo_type"])
        and among("chemsys", document["chemsys"])
        and among("formula", document["formula_pretty"])
        and ("is_stable" not in parameters or document["is_stable"])
    )


def _only(document: Mapping[str, Any], fields: str | None) -> dict[str, Any]:
    if fields is None:
        return {"material_id": document["material_id"]}
    return {name: document[name] for name in fields.split(",")}


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    content: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    cut: bool = False,
) -> None:
    body = json.dumps(content).encode()
    body = body[: len(body) // 2] if cut else body
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
