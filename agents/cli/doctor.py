"""`hullward doctor`: check this installation."""

from __future__ import annotations

from hullward.agents.cli.options import Json
from hullward.agents.cli.output import print_result


def doctor(as_json: Json = False) -> None:
    """Show what is installed, what works, and the command that fixes what does not."""
    from hullward.agents.doctor import Environment, diagnose
    from hullward.agents.settings import read_machine

    machine = read_machine()
    findings = diagnose(
        Environment(
            mp_api_key_present=machine.mp_api_key is not None,
            thread_variables=machine.thread_variables,
            vllm_python=machine.vllm_python,
        )
    )
    marks = {True: "ok", False: "MISSING", None: "-"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.ok]:>8}  {finding.name}: {finding.says}")
        if finding.fix and finding.ok is not True:
            lines.append(f"{'':>8}  fix: {finding.fix}")
    rows = [{"name": f.name, "ok": f.ok, "says": f.says, "fix": f.fix} for f in findings]
    print_result({"findings": rows}, lines, as_json)
