"""Everything that is looked at, in the order of the page."""

from collections.abc import Callable
from pathlib import Path

from tavq.core.errors import UsageError, first_line
from tavq.doctor import installed
from tavq.doctor.finding import Check, Finding, Group, run_check


def examine(folder: Path, progress: Callable[[int, int, str], None] | None = None) -> list[Finding]:
    """Look at what is installed, usable and fast here; takes some ten seconds.

    Args:
        folder: a folder on the disk that runs are written to.
        progress: called with (done, total, what is looked at).

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist; give one on the disk that runs are written to.")
    findings = run_check("installed", "packages", installed.check_packages)
    findings += run_check("installed", "extras", installed.check_extras)
    try:
        checks = _checks_with_torch(folder)
    except (ImportError, OSError) as error:  # a damaged or missing PyTorch or one of its libraries
        reason = f"cannot be loaded ({first_line(error)[:80]})"
        advice = "Install PyTorch again, as pytorch.org says for this machine."
        return [*findings, Finding("usable", "PyTorch", reason, {"works": False}, "broken", advice)]
    for done, (group, name, check) in enumerate(checks):
        if progress is not None:
            progress(done, len(checks), name)
        findings += run_check(group, name, check)
    if progress is not None:
        progress(len(checks), len(checks), "")
    return findings


def _checks_with_torch(folder: Path) -> list[tuple[Group, str, Check]]:
    from tavq.doctor import devices, speed, system  # here, as what is installed is shown without torch too

    return [
        ("usable", "GPU", devices.check_devices),
        ("usable", "processor", devices.check_processor),
        ("usable", "memory", system.check_memory),
        ("usable", "disk", lambda: system.check_disk(folder)),
        ("usable", "open files", system.check_limits),
        ("usable", "torch.compile", system.check_compilers),
        ("usable", "several processes", system.check_processes),
        ("fast", "products of matrices", speed.check_products),
        ("fast", "images", speed.check_images),
    ]
