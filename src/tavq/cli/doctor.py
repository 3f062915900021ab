"""`tavq doctor`: what is installed, usable and fast here."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from tavq import api
from tavq.cli import console
from tavq.cli.devices import with_device

WIDTH = 80
NAME = 22
"""Columns of the names."""

TITLES = {"installed": "Installed", "usable": "Usable here", "fast": "How fast"}
MARKS = {"ok": "ok", "missing": "-", "odd": "!", "broken": "X"}


@with_device
def doctor(*, folder: Path = Path(), json: Path | None = None) -> int:
    """Show what is installed, usable and fast here, with advice, on one page; takes about ten seconds.

    The exit code is 1 if something that tavq needs does not work. Neither page nor JSON names this machine or its
    folders.

    Example: tavq doctor --json doctor.json

    Args:
        folder: A folder on the disk that runs are written to; by default this one.
        json: Also write what was found to this file.
    """
    with console.bar("Looking") as bar:
        findings = api.examine(folder, bar)
    with console.saved_as_json(json, api.findings_as_json(findings)):
        for line in format_page(findings):
            console.show(line)
    return 1 if any(finding.state == "broken" for finding in findings) else 0


def format_page(findings: "Sequence[api.Finding]") -> Iterator[str]:
    """The lines of the page, at most `WIDTH` columns each."""
    for group, title in TITLES.items():
        members = [finding for finding in findings if finding.group == group]
        if members:
            yield title
        for finding in members:
            first = f"  {MARKS[finding.state]:<3}{finding.name:<{NAME}}"
            rest = " " * len(first)
            yield from textwrap.wrap(finding.shown, WIDTH, initial_indent=first, subsequent_indent=rest)
    advised = [finding for finding in findings if finding.advice]
    if advised:
        yield "What to do"
    for finding in advised:
        yield from textwrap.wrap(finding.advice or "", WIDTH, initial_indent="  * ", subsequent_indent="    ")
    yield api.give_verdict(findings)
