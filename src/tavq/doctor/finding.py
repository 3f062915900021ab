"""One thing that was looked at, and what all of them come to."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tavq.core.errors import first_line

Group = Literal["installed", "usable", "fast"]
State = Literal["ok", "missing", "odd", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        group: the part of the page.
        name: what was looked at.
        shown: what was found, for a person.
        values: the same for a program.
        state: `missing` is optional, `odd` works but not as well as it could, `broken` is needed and does not work.
        advice: what to do about it.
    """

    group: Group
    name: str
    shown: str
    values: dict[str, Any]
    state: State = "ok"
    advice: str | None = None


Check = Callable[[], Iterable[Finding]]


def run_check(group: Group, name: str, check: Check) -> list[Finding]:
    """The findings of a check; one that fails is a finding too."""
    try:
        return list(check())
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)[:120]}"
        return [Finding(group, name, f"could not be checked ({reason})", {"error": reason}, "odd")]


def give_verdict(findings: Iterable[Finding]) -> str:
    """One sentence on all findings."""
    states = [finding.state for finding in findings]
    broken, odd = states.count("broken"), states.count("odd")
    if broken:
        return f"Not ready: {count(broken, 'thing')} that tavq needs {'does' if broken == 1 else 'do'} not work."
    return f"Ready, with {count(odd, 'thing')} to look at." if odd else "Ready."


def count(number: int, noun: str) -> str:
    """`1 thing`, `2 things`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def findings_as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """The verdict and every finding by group and name, without names of hosts and places."""
    listed = list(findings)
    return {"verdict": give_verdict(listed), "findings": [asdict(finding) for finding in listed]}
