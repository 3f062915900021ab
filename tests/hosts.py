"""Two hosts on one machine: network namespaces with addresses of their own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import tavq

NETWORK = "10.77.18"


@dataclass
class Host:
    """A host that agents of torchrun run on."""

    address: str
    prefix: list[str]
    """Begins each command, to run it on this host."""
    device: str
    """Name of its network device."""
    agents: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, arguments: list[str], log: Path) -> "subprocess.Popen[str]":
        """Start an agent; it stands at the head of a session of its own."""
        source = str(Path(tavq.__file__).parents[1])
        own = {"PYTHONPATH": source, "GLOO_SOCKET_IFNAME": self.device, "OMP_NUM_THREADS": "1"}
        # with a shared store, the host that comes back waits for an address that is not sent again (torch 2.13)
        environment = {**os.environ, **own, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        command = [*self.prefix, sys.executable, "-m", "torch.distributed.run", f"--local-addr={self.address}"]
        with log.open("a") as written:
            agent = subprocess.Popen(
                [*command, *arguments],
                stdout=written,
                stderr=written,
                env=environment,
                text=True,
                start_new_session=True,
            )
        self.agents.append(agent)
        return agent

    def kill(self) -> None:
        """End every process of this host at once, as a loss of power does."""
        for agent in self.agents:
            for process in [*_descendants(agent.pid), agent.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            agent.wait()
        self.agents.clear()


def _descendants(process: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout.split()
    return [each for child in map(int, found) for each in (*_descendants(child), child)]


def workers_of(agent: int) -> list[int]:
    """The processes that an agent has started, oldest first."""
    return sorted(_descendants(agent))


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts, each in a network namespace; skips the test on a machine that allows none."""
    names = [f"tavq-{os.getpid()}-{side}" for side in "ab"]
    first, second = (
        Host(f"{NETWORK}.{number}", ["ip", "netns", "exec", name], f"v{number}") for number, name in enumerate(names, 1)
    )
    try:
        _connect(names)
        yield first, second
    finally:
        for host in (first, second):
            host.kill()
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _connect(names: list[str]) -> None:
    def call(*words: str) -> None:
        try:
            subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("network namespaces need the command ip (iproute2)")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine allows no network namespaces: ip {' '.join(words)}: {error.stderr.strip()}")

    for name in names:
        call("netns", "add", name)
    call("-n", names[0], "link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", names[1])
    for number, name in enumerate(names, 1):
        call("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", f"v{number}")
        for device in (f"v{number}", "lo"):
            call("-n", name, "link", "set", device, "up")


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait until a condition holds; AssertionError that says `what` if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} seconds in vain: {what}"
        time.sleep(0.02)
