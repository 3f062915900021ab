"""Runs on two hosts of which a process, a host or all are killed go on by themselves or by the same command."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, two_hosts, wait_for, workers_of

pytestmark = pytest.mark.slow  # starts processes that train

RECIPE = """
model:
  net: {channels: 8, multipliers: [1, 1, 2], blocks: 1, attention: false}
  codebook: {name: anchored, entries: 16, width: 8}
data: {size: 16, flip: 0.5}
train:
  steps: 200
  batch: 3
  learning_rate: 1.0e-3
  ema: 0.9
  adversarial: {start: 3, discriminator: {channels: 8, layers: 1}}
  log_every: 10
  sample_every: 1000
  checkpoint_every: 10
"""


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as pair:
        yield pair


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


class Run:
    """A run of one process a host, with the same command for each start."""

    def __init__(self, hosts: tuple[Host, Host], recipe: Path, data: Path, out: Path) -> None:
        self.hosts, self.out = hosts, out
        meeting = f"--rdzv-endpoint={hosts[0].address}:29418"
        launch = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=run", meeting]
        train = ["-m", "tavq", "train", str(recipe), "--data", str(data), "--out", str(out), "--resume", "auto"]
        self.arguments = [*launch, "--max-restarts=3", *train]

    def start(self, number: int) -> "subprocess.Popen[str]":
        # torchrun does not find its own address in a namespace, whose host name is that of the machine
        meets = f"--rdzv-conf=is_host={int(number == 0)}"
        return self.hosts[number].start([meets, *self.arguments], self.out.parent / f"host-{number}.log")

    def steps(self) -> int:
        """The step of the newest checkpoint."""
        folder = self.out / "checkpoints"
        found = folder.iterdir() if folder.is_dir() else ()
        return max((int(path.name) for path in found if path.name.isdigit()), default=0)

    def finish(self, agents: list["subprocess.Popen[str]"]) -> str:
        """Wait for the end of the run; return the hash of its weights."""
        told = [self.out.parent / f"host-{number}.log" for number in (0, 1)]
        assert [agent.wait(timeout=400) for agent in agents] == [0, 0], "".join(path.read_text() for path in told)
        return hashlib.sha256((self.out / "model/model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the weights of a run that nothing disturbs."""
    with two_hosts() as hosts:
        run = Run(hosts, recipe, shared_images, tmp_path_factory.mktemp("undisturbed") / "run")
        return run.finish([run.start(0), run.start(1)])


@pytest.mark.parametrize("victim", ["process", "host", "all"])
def test_what_is_killed_comes_back_and_the_run_ends_alike(
    hosts: tuple[Host, Host], recipe: Path, shared_images: Path, tmp_path: Path, undisturbed: str, victim: str
) -> None:
    run = Run(hosts, recipe, shared_images, tmp_path / "run")
    agents = [run.start(0), run.start(1)]
    wait_for(lambda: run.steps() >= 20)
    if victim == "process":
        os.kill(workers_of(agents[1].pid)[-1], signal.SIGKILL)  # its agent starts it again
    if victim == "host":  # the other host waits for it
        hosts[1].kill()
        agents[1] = run.start(1)
    if victim == "all":
        for host in hosts:
            host.kill()
        agents = [run.start(0), run.start(1)]
    before = run.steps()
    assert before < 200
    assert run.finish(agents) == undisturbed


def test_processes_whose_agent_was_killed_end_with_a_checkpoint(
    hosts: tuple[Host, Host], recipe: Path, shared_images: Path, tmp_path: Path, undisturbed: str
) -> None:
    """They would otherwise write to the run folder beside those that the same command starts."""
    run = Run(hosts, recipe, shared_images, tmp_path / "run")
    agents = [run.start(0), run.start(1)]
    wait_for(lambda: run.steps() >= 20)
    left = [process for agent in agents for process in workers_of(agent.pid)]
    for agent in agents:
        agent.kill()
        agent.wait()
    agents = [run.start(0), run.start(1)]
    assert run.finish(agents) == undisturbed
    assert [process for process in left if Path(f"/proc/{process}/stat").exists()] == []
