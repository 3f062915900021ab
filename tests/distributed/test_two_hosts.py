"""A run on two hosts goes on when a process, a host, all or the agents are killed, and ends like an undisturbed one.

One run suffers everything in turn, because each start of two hosts costs many seconds.
"""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import Host, two_hosts, wait_for, workers_of

import tavq

pytestmark = [
    pytest.mark.slow,  # starts processes that train
    pytest.mark.skipif("TAVQ_HOSTS" not in os.environ, reason="takes minutes: set TAVQ_HOSTS=1 to try two hosts"),
]

STEPS, EVERY = 60, 2
"""Steps of the run, and from one checkpoint to the next."""

RECIPE = f"""
model:
  net: {{channels: 8, multipliers: [1, 1], blocks: 1, attention: false}}
  codebook: {{name: anchored, entries: 16, width: 8}}
data: {{size: 16, flip: 0.5}}
train:
  steps: {STEPS}
  batch: 3
  learning_rate: 1.0e-3
  ema: 0.9
  adversarial: {{start: 3, discriminator: {{channels: 8, layers: 1}}}}
  log_every: 10
  sample_every: 1000
  checkpoint_every: {EVERY}
"""


class Run:
    """A run of one process a host, with the same command for each start."""

    def __init__(self, hosts: tuple[Host, Host], train: list[str], out: Path) -> None:
        self.hosts, self.out = hosts, out
        meeting = f"--rdzv-endpoint={hosts[0].address}:29418"
        launch = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=run", meeting]
        self.arguments = [*launch, "--max-restarts=3", *train, str(out)]
        self.agents = [self.start(0), self.start(1)]

    def start(self, number: int) -> "subprocess.Popen[str]":
        # torchrun does not find its own address in a namespace, whose host name is that of the machine
        meets = f"--rdzv-conf=is_host={int(number == 0)},keep_alive_interval=1,keep_alive_max_attempt=10"
        return self.hosts[number].start([meets, *self.arguments], self.out.parent / f"host-{number}.log")

    def restart(self, *numbers: int) -> None:
        """Give the command again on hosts."""
        for number in numbers:
            self.agents[number] = self.start(number)

    def steps(self) -> int:
        """The step of the newest checkpoint."""
        folder = self.out / "checkpoints"
        found = folder.iterdir() if folder.is_dir() else ()
        return max((int(path.name) for path in found if path.name.isdigit()), default=0)

    def go_on(self, after: str) -> None:
        """Wait until there are new checkpoints."""
        wanted = self.steps() + 2 * EVERY
        wait_for(lambda: self.steps() >= wanted, f"new checkpoints after {after}\n{self.logs()}")
        assert self.steps() < STEPS, f"the run ended before its next trial, after {after}"

    def logs(self) -> str:
        """What the hosts have written."""
        return "".join((self.out.parent / f"host-{number}.log").read_text() for number in (0, 1))


def hash_of(run: Path) -> str:
    """The hash of the weights that a run ended with."""
    return hashlib.sha256((run / "model/model.safetensors").read_bytes()).hexdigest()


def train_undisturbed(train: list[str], out: Path) -> str:
    """The hash that two processes of one host end with."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(tavq.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *train, str(out)], env=environment, capture_output=True, check=True, timeout=200)
    return hash_of(out)


def test_what_is_killed_comes_back_and_the_run_ends_alike(shared_images: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    train = ["-m", "tavq", "train", str(recipe), "--data", str(shared_images), "--resume", "auto", "--out"]
    with two_hosts() as hosts:
        run = Run(hosts, train, tmp_path / "run")
        run.go_on("the start")

        os.kill(workers_of(run.agents[1].pid)[-1], signal.SIGKILL)
        run.go_on("a process was killed, which its agent starts again")

        hosts[1].kill()
        run.restart(1)
        run.go_on("a host was killed and came back, for which the other one waits")

        for host in hosts:
            host.kill()
        run.restart(0, 1)
        run.go_on("all was killed and the same command given again")

        left = [process for agent in run.agents for process in workers_of(agent.pid)]
        for agent in run.agents:
            agent.kill()  # its processes notice: they would write to the run folder beside those started next
            agent.wait()
        run.restart(0, 1)
        assert [agent.wait(timeout=200) for agent in run.agents] == [0, 0], run.logs()
        assert [process for process in left if Path(f"/proc/{process}/stat").exists()] == []
    assert hash_of(run.out) == train_undisturbed(train, tmp_path / "undisturbed")
