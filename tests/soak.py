"""Attacks every writer and every stored file, and counts how it ends: `make soak`, or `python tests/soak.py --help`.

Four attacks: SIGKILL at random moments with a resume after each, cut and flipped files, a full disk at each write, two
writers of one output. An end is right if the output has the bytes of an undisturbed run.
"""

import argparse
import hashlib
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from caption_server import serving, truth
from checkpoints import load_newest
from command_server import CommandServer, Running, shared_server
from tiny_bert import write_bert

from tavq.api.data import import_dataset
from tavq.core import files
from tavq.core.errors import TavqError
from tavq.core.temporary import TEMP_PREFIX
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.report.run import read_run
from tavq.search.index import SearchIndex
from tavq.tasks.model_folder import load_task
from tavq.text.store import TextStore
from tavq.token_file import Tokens
from tavq.tokenizer import Tokenizer

IMAGES = 24
SMALL = "--model.net.channels 8 --model.net.multipliers [1,1,2] --model.codebook.entries 16 --model.codebook.width 8"
SMALL += " --data.size 32 --train.steps 6 --train.batch 4 --train.warmup 1 --train.log_every 1"
SMALL += " --train.checkpoint_every 2 --train.sample_every 4 --train.adversarial.start 3"
SMALL += " --train.adversarial.discriminator.channels 8"
TASK = "--task.layers 1 --task.heads 2 --task.width 16 --train.steps 6 --train.batch 4 --train.log_every 1"
TASK += " --train.checkpoint_every 2 --train.sample_every 4"


@dataclass(frozen=True)
class Job:
    """A command that writes something.

    Attributes:
        name: in the table of counts.
        command: the arguments that write `out`, also where part of it is there.
        result: what must be equal to that of an undisturbed run; None where there is no result.
        seconds: an undisturbed run takes.
    """

    name: str
    command: Callable[[Path], list[Any]]
    result: Callable[[Path], str | None]


@dataclass
class Counts:
    """How the tries of one attack ended."""

    tries: int = 0
    kills: int = 0
    lost: int = 0
    wrong: int = 0
    tracebacks: int = 0
    leftovers: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Ends that must not be."""
        return self.lost + self.wrong + self.tracebacks + self.leftovers


def digest(path: Path) -> str | None:
    """A hash of a file, or of a folder with its names, leaving out locks and what is temporary."""
    if not path.exists():
        return None
    found = hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file() and not each.name.startswith("."):
            found.update(f"{each.relative_to(path)}\0".encode() + each.read_bytes())
    return found.hexdigest()


def described(folder: Path) -> str | None:
    """A hash of the descriptions in a folder, in whatever order they came; None unless each image has one."""
    paths = sorted(folder.glob("long_text*.jsonl"))
    lines = [line for path in paths for line in files.read_json_lines(path)]
    texts = sorted((line["file_name"], line.get("text")) for line in lines)
    return hashlib.sha256(repr(texts).encode()).hexdigest() if len(texts) == IMAGES else None


class Place:
    """The inputs of all jobs, made once, and the outputs of undisturbed runs."""

    def __init__(self, folder: Path, server: CommandServer, url: str) -> None:
        self.folder, self.server, self.url = folder, server, url
        self.data, self.told = folder / "data", folder / "told.txt"
        self.bert = write_bert(folder / "bert")
        write_images(self.data)
        self.expected: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        for job in self.jobs().values():
            self.prepare(job)

    def prepare(self, job: Job) -> None:
        """Run a job undisturbed; its output is the input of others."""
        out = self.out(job)
        if job.name == "describe":
            write_images(out)
        started = time.monotonic()
        self.must(*job.command(out))
        self.seconds[job.name] = time.monotonic() - started
        result = job.result(out)
        assert result is not None, job.name
        self.expected[job.name] = result

    def out(self, job: Job) -> Path:
        """The output of the undisturbed run."""
        return self.folder / "undisturbed" / job.name.replace(" ", "-")

    def must(self, *arguments: Any) -> None:
        """Run a command that must succeed."""
        running = self.server.start(self.told, *arguments)
        assert running.wait() == 0, (arguments, running.lines)

    def jobs(self) -> dict[str, Job]:
        """The writers by name, inputs of others first."""
        data, undisturbed = self.data, self.folder / "undisturbed"
        model, shards = undisturbed / "train", undisturbed / "data-export"
        resumable = lambda run: ["--resume"] if (run / "recipe.yaml").exists() else []  # noqa: E731
        train = ["train", "vqgan-tiny", "--data", data, *SMALL.split()]
        task = ["task", "train", "unconditional-tiny", "--tokenizer", model, "--data", data, *TASK.split()]
        listed = [
            Job("text", lambda out: ["text", data, "--encoder", self.bert, "--jobs", 1, "--out", out], digest),
            Job("train", lambda out: [*train, "--out", out, *resumable(out)], lambda out: digest(out / "model")),
            Job("task train", lambda out: [*task, "--out", out, *resumable(out)], lambda out: digest(out / "model")),
            Job("describe", lambda out: ["describe", out, "--model", "m", "--endpoint", self.url], described),
            Job("encode", lambda out: ["encode", model, data, "--out", out / "tokens.safetensors"], digest),
            Job("data export", lambda out: ["data", "export", data, out, "--to", "webdataset"], digest),
            Job("data import", lambda out: ["data", "import", "webdataset", shards, out], digest),
            Job("search index", lambda out: self.index_command(out), digest),
        ]
        return {job.name: job for job in listed}

    def index_command(self, out: Path) -> list[Any]:
        """The command that makes an index, with an aligned tokenizer that is trained at the first call."""
        model = self.folder / "aligned"
        text = self.folder / "undisturbed" / "text"
        if not model.exists():
            aligned = ["train", "ta-vqgan-tiny", "--data", self.data, "--text", text, "--out", model]
            self.must(*aligned, *SMALL.split(), "--model.align.iterations", 3)
        return ["search", "index", model, "--data", self.data, "--text", text, "--out", out]


def write_images(folder: Path) -> None:
    """Images of distinct colours with captions and texts."""
    lines = []
    for number in range(IMAGES):
        name, colour = f"{number:02}.png", ("red", "blue")[number % 2]
        values = np.random.default_rng(number).integers(0, 9, (32, 32, 3)) + 10 * number
        save_png(folder / name, values.astype(np.uint8))
        split = "train" if number < IMAGES - 4 else "test"
        text = f"A {colour} car. The dog sees a bowl of soup, number {number}."
        lines.append({"file_name": name, "split": split, "captions": [text]})
    files.write_json_lines(folder / "metadata.jsonl", lines)


# --- the attacks ------------------------------------------------------------------------------------------------


def kill(place: Place, job: Job, count: int, draws: random.Random) -> Counts:
    """Kill a job at random moments, resume it, and compare each end with the undisturbed one."""
    counts, out = Counts(), place.folder / "killed" / job.name.replace(" ", "-")
    while counts.kills < count:
        fresh(out, job)
        for _ in range(draws.randrange(1, 6)):
            running = place.server.start(place.told, *job.command(out))
            time.sleep(draws.uniform(0, place.seconds[job.name]))
            running.signal(signal.SIGKILL)
            counts.kills += running.wait() == -signal.SIGKILL
            check_lines(running, counts)
            if job.result(out) == place.expected[job.name]:
                break
        counts.tries += 1
        finish(place, job, out, counts)
    return counts


def fill_disk(place: Place, job: Job, shares: list[float]) -> Counts:
    """Let every write beyond a size fail, then run again with space."""
    counts, out = Counts(), place.folder / "full" / job.name.replace(" ", "-")
    sizes = [path.stat().st_size for path in place.out(job).rglob("*") if path.is_file()]
    for share in shares:
        fresh(out, job)
        running = place.server.start(place.told, *job.command(out), largest_file=max(1, int(max(sizes) * share)))
        code = running.wait()
        check_lines(running, counts)
        counts.tries += 1
        counts.ends["refused" if code else "enough space"] += 1
        finish(place, job, out, counts)
    return counts


def write_twice(place: Place, job: Job, times: int) -> Counts:
    """Run a job twice at the same time into one output."""
    counts, out = Counts(), place.folder / "twice" / job.name.replace(" ", "-")
    for number in range(times):
        fresh(out, job)
        command = job.command(out)
        first = place.server.start(place.told, *command)
        time.sleep(place.seconds[job.name] * number / max(1, times))
        second = place.server.start(place.folder / "told-2.txt", *command)
        codes = first.wait(), second.wait()
        for running in (first, second):
            check_lines(running, counts)
        counts.tries += 1
        counts.ends[f"{codes.count(0)} of 2 succeeded"] += 1
        finish(place, job, out, counts)
    return counts


def fresh(out: Path, job: Job) -> None:
    """Remove what an earlier try wrote."""
    shutil.rmtree(out, ignore_errors=True)
    if job.name == "describe":
        write_images(out)


def finish(place: Place, job: Job, out: Path, counts: Counts) -> None:
    """Run a job to its end unless it has its result, and compare that."""
    if job.result(out) != place.expected[job.name]:
        running = place.server.start(place.told, *job.command(out))
        if running.wait() != 0:
            counts.lost += 1
            counts.notes.append(f"{job.name}: {running.lines[-3:]}")
        check_lines(running, counts)
    if job.result(out) != place.expected[job.name]:
        counts.wrong += 1
        counts.notes.append(f"{job.name}: another result")
    left = list(out.parent.rglob(f"{TEMP_PREFIX}*"))
    if left:  # killed after its result had its name: the next start removes what was replaced
        place.server.start(place.told, *job.command(out)).wait()
        left = list(out.parent.rglob(f"{TEMP_PREFIX}*"))
    counts.leftovers += len(left)
    counts.notes += [f"{job.name}: {path.name} stays" for path in left]


def check_lines(running: Running, counts: Counts) -> None:
    """Count a traceback among the lines of a command."""
    if running.code == 70 or any("Traceback" in line for line in running.lines):
        counts.tracebacks += 1
        counts.notes.append("\n".join(running.lines[-30:]))


# --- damaged files ----------------------------------------------------------------------------------------------


def tensors_of(state: Any) -> str:
    """A hash of tensors by name."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(name.encode() + np.ascontiguousarray(value.float().numpy()).tobytes())
    return found.hexdigest()


def read_tokenizer(folder: Path) -> Any:
    """What a tokenizer's folder loads as."""
    model = Tokenizer.from_pretrained(folder)
    return model.config, tensors_of(model.state_dict())


def read_task(folder: Path) -> Any:
    """What a task's folder loads as."""
    model = load_task(folder)
    return model.config, tensors_of(model.task.state_dict()), tensors_of(model.tokenizer.state_dict())


def read_checkpoints(folder: Path) -> Any:
    """What a run would resume from; an older checkpoint is a right answer to a damaged one."""
    groups, metadata, damaged = load_newest(folder)
    return "an older one" if damaged else (metadata, [tensors_of(group) for _, group in sorted(groups.items())])


def read_store(folder: Path) -> Any:
    """What a text store holds."""
    store = TextStore.open(folder, verify=True)
    return [(key, {name: value.tobytes() for name, value in store.vectors(key).items()}) for key in store.keys]


def read_index(folder: Path) -> Any:
    """What a search index holds."""
    index = SearchIndex.open(folder, verify=True)
    keys = [index.key(number) for number in range(index.manifest.images)]
    return keys, read_tokenizer(folder / "model")


def read_tokens(folder: Path) -> Any:
    """What a tokens file holds."""
    tokens = Tokens.load(folder / "tokens.safetensors")
    return tokens.keys, tokens.indices.numpy().tobytes()


def read_data(folder: Path) -> Any:
    """What a data set holds."""
    return list(FolderDataset(folder)), [str(fault) for fault in FolderDataset(folder).faults]


def read_shards(folder: Path) -> Any:
    """What exported shards hold."""
    with tempfile.TemporaryDirectory() as name:
        import_dataset("webdataset", folder, Path(name) / "out")
        return digest(Path(name) / "out")


READERS: dict[str, tuple[str, str, Callable[[Path], Any], bool]] = {
    "tokenizer": ("train", "model", read_tokenizer, True),
    "checkpoints": ("train", "checkpoints", read_checkpoints, True),
    "run": ("train", ".", lambda folder: repr(read_run(folder)), False),
    "task": ("task-train", "model", read_task, True),
    "text store": ("text", ".", read_store, True),
    "search index": ("search-index", ".", read_index, True),
    "tokens": ("encode", ".", read_tokens, True),
    "descriptions": ("describe", ".", read_data, False),
    "data set": ("data-import", ".", read_data, False),
    "shards": ("data-export", ".", read_shards, False),
}
"""Artefacts: the job that writes them, the folder in its output, a reader, and whether hashes protect all of it."""


def damages(data: bytes, count: int, draws: random.Random) -> Iterator[bytes]:
    """Cuts at the places where a header or the file ends, then flipped bytes and random cuts."""
    yield from (data[:length] for length in (0, 1, 7, 8, len(data) // 2, len(data) - 1) if length < len(data))
    for _ in range(count):
        if not data:
            return
        position = draws.randrange(len(data))
        flipped = bytearray(data)
        flipped[position] ^= 1 << draws.randrange(8)
        yield bytes(flipped) if draws.random() < 0.8 else data[:position]


def damage(place: Place, name: str, count: int, draws: random.Random) -> Counts:
    """Damage the files of one artefact, at least `count` times in all, and read it each time."""
    job, inner, read, protected = READERS[name]
    source, copy, counts = place.folder / "undisturbed" / job / inner, place.folder / "damaged", Counts()
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    expected = read(copy)
    paths = sorted(path for path in copy.rglob("*") if path.is_file() and path.suffix != ".md")
    paths = [path for path in paths if not path.name.startswith(".") and path.suffix != ".png"]
    if name == "run":  # its folders are artefacts of their own
        paths = [path for path in paths if path.parent == copy]
    while counts.tries < count:
        path = draws.choice(paths)
        whole = path.read_bytes()
        damaged = draws.choice(list(damages(whole, 6, draws)))
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        counts.tries += 1
        judge(counts, f"{name}: {path.relative_to(copy)}", lambda: read(copy), expected, protected)
        path.write_bytes(whole)
    return counts


def judge(counts: Counts, what: str, read: Callable[[], Any], expected: Any, protected: bool) -> None:
    """Count how the reading of a damaged artefact ends."""
    try:
        found = read()
    except TavqError:
        counts.ends["refused by name"] += 1
    except Exception as error:
        counts.tracebacks += 1
        counts.notes.append(f"{what}: {type(error).__name__}: {error}")
    else:
        if found == expected or found == "an older one":
            counts.ends["read as before"] += 1
        elif protected:
            counts.wrong += 1
            counts.notes.append(f"{what}: loaded as something else")
        else:
            counts.ends["read as other data, which has no hashes"] += 1


# --- the whole --------------------------------------------------------------------------------------------------


def soak(
    folder: Path, kills: int, flips: int, disk: int, twice: int, seed: int, only: str = ""
) -> Iterator[tuple[str, Counts]]:
    """Yield the counts of each attack by its name.

    Args:
        folder: for everything that is written.
        kills: of all jobs together.
        flips: damaged files of all artefacts together.
        disk: sizes of a full disk for each job; 1 tries every third job.
        twice: pairs of writers for each job; 1 tries every third job.
        seed: of all that is random; when a kill arrives depends on the machine too.
        only: a part of the names of the attacks to run; the others are left out.
    """
    draws = random.Random(seed)
    with serving(truth) as (url, _):
        place = Place(folder, shared_server(), url)
        jobs = list(place.jobs().values())
        attacks: dict[str, Callable[[], Counts]] = {}
        for name, share in zip(READERS, spread(flips, len(READERS)), strict=True):
            attacks[f"damage: {name}"] = partial(damage, place, name, share, draws)
        for job in jobs if disk > 1 else jobs[::3]:
            shares = [(step + 0.5) / disk for step in range(disk)]
            attacks[f"full disk: {job.name}"] = partial(fill_disk, place, job, shares)
        for job in jobs if twice > 1 else jobs[1::3]:
            attacks[f"two writers: {job.name}"] = partial(write_twice, place, job, twice)
        for job, share in zip(jobs, spread(kills, len(jobs)), strict=True):
            attacks[f"kill: {job.name}"] = partial(kill, place, job, share, draws)
        for name, attack in attacks.items():
            if only in name:
                yield name, attack()


def spread(count: int, parts: int) -> list[int]:
    """A count as evenly as possible over parts."""
    return [count // parts + (index < count % parts) for index in range(parts)]


def row(name: str, counts: Counts) -> str:
    """The counts as a row of a Markdown table."""
    ends = ", ".join(f"{count} {end}" for end, count in counts.ends.most_common())
    numbers = (counts.tries, counts.kills, counts.lost, counts.wrong, counts.tracebacks, counts.leftovers)
    return f"| {name} | {' | '.join(map(str, numbers))} | {ends} |"


def add(total: Counts, counts: Counts) -> None:
    """Add counts to a sum."""
    for key in ("tries", "kills", "lost", "wrong", "tracebacks", "leftovers"):
        setattr(total, key, getattr(total, key) + getattr(counts, key))
    total.notes += counts.notes


def main() -> int:
    """Run the soak, print its table and what went wrong; 0 if nothing did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=104, help="of all writers together")
    parser.add_argument("--flips", type=int, default=300, help="damaged files of all artefacts together")
    parser.add_argument("--disk", type=int, default=3, help="sizes of a full disk for each writer")
    parser.add_argument("--twice", type=int, default=2, help="pairs of writers of each output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the names of attacks, such as `kill: search index`")
    given, total = parser.parse_args(), Counts()
    print("| attack | tries | kills | lost | wrong | tracebacks | leftovers | ends |")
    print("|---|--:|--:|--:|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory() as name:
        for attack, counts in soak(Path(name), **vars(given)):
            print(row(attack, counts), flush=True)
            add(total, counts)
    print(row("all", total))
    print("\n".join(total.notes))
    return int(total.failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
