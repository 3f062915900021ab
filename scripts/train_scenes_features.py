"""Train the `scenes` feature network and write its weights with a record of how they were made.

The network learns to predict the attributes (`LABELS`) of scenes at 48 to 96 pixels; the layers before the classifier
are saved as float16, with batch normalization folded in. The scenes have seeds that no split of the data set uses, and
are drawn once, at 96 pixels. The same seed, versions and machine give the same file.

    python scripts/train_scenes_features.py            # about 7 minutes on one core
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

import tavq
from tavq.core.files import write_tensors
from tavq.nets.features.extractors import ScenesNetwork, scenes_layers
from tavq.scenes import LABELS, label_vector, render, sample_scene

TRAINING, HELD_OUT = 700_001, 700_002  # seeds of scenes
DRAWN = 96
SIZES = (48, 64, 64, 80, 96)


class Classifier(nn.Module):
    """The scenes network with batch normalization and a classifier."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
                for i, o, stride in scenes_layers()
            )
        )
        self.classifier = nn.Linear(ScenesNetwork.CHANNELS[-1], labels)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the labels."""
        return self.classifier(self.layers(images).mean(dim=(2, 3)))

    def folded(self) -> dict[str, Tensor]:
        """Weights and biases of convolutions without normalization that compute the same in evaluation mode."""
        tensors = {}
        for position, (convolution, norm, _) in enumerate(self.layers):
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            tensors[f"convolutions.{position}.weight"] = (convolution.weight * gain[:, None, None, None]).half()
            tensors[f"convolutions.{position}.bias"] = (norm.bias - norm.running_mean * gain).half()
        return tensors


def drawn(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Images [n 3 y x] as uint8 and their labels [n labels] of the first scenes of a seed."""
    images = np.empty((count, 3, DRAWN, DRAWN), np.uint8)
    labels = np.empty((count, len(LABELS)), np.float32)
    for index in range(count):
        scene = sample_scene(seed, index)
        images[index] = render(scene, DRAWN).image.transpose(2, 0, 1)
        labels[index] = label_vector(scene)
        if index % 2000 == 1999:
            print(f"drawn {index + 1} of {count}", flush=True)
    return torch.from_numpy(images), torch.from_numpy(labels)


def resized(raw: Tensor, size: int) -> Tensor:
    """Images in [-1, 1] of another size."""
    images = raw.float().div(127.5).sub(1)
    if size != DRAWN:
        images = interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return images.contiguous(memory_format=torch.channels_last)


def train(images: Tensor, labels: Tensor, steps: int, batch: int, seed: int) -> Classifier:
    """A trained network in evaluation mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Classifier(labels.shape[1]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.15)
    frequencies = labels.mean(dim=0).clamp(min=1e-3)
    # Rare labels weigh more; otherwise no features form for them.
    weight = ((1 - frequencies) / frequencies).sqrt().clamp(max=8)
    start, order = time.monotonic(), torch.empty(0, dtype=torch.int64)
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = torch.randperm(len(images), generator=generator)
        chosen, order = order[:batch], order[batch:]
        size = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
        logits = network(resized(images[chosen], size))
        loss = binary_cross_entropy_with_logits(logits, labels[chosen], pos_weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step} of {steps}  loss {loss.item():.4f}  {time.monotonic() - start:.0f} s", flush=True)
    return network.eval()


def average_precision(scores: Tensor, truth: Tensor) -> float:
    """The mean over positives of the precision at their rank."""
    hits = truth[scores.argsort(descending=True)]
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float(precision[hits > 0].mean())


def area_under_curve(scores: Tensor, truth: Tensor) -> float:
    """The fraction of pairs of a positive and a negative that are in the right order."""
    ranks = scores.argsort().argsort().double() + 1
    positives = int(truth.sum())
    return float((ranks[truth > 0].sum() - positives * (positives + 1) / 2) / (positives * (len(truth) - positives)))


@torch.no_grad()
def scored(
    network: ScenesNetwork, classifier: nn.Linear, images: Tensor, labels: Tensor, size: int
) -> list[list[float]]:
    """[AUC, average precision] of each label that at least five images have and at least five do not have."""
    logits = torch.cat([classifier(network(resized(part, size))) for part in images.split(100)])
    counts = labels.sum(dim=0)
    columns = [n for n, count in enumerate(counts.tolist()) if 5 <= count <= len(labels) - 5]
    pairs = [(logits[:, n], labels[:, n]) for n in columns]
    return [[area_under_curve(*pair), average_precision(*pair)] for pair in pairs]


def main() -> None:
    """Draw scenes, train, write the weights, read them back and score them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = Path(tavq.__file__).parent / "assets" / "scenes_features.safetensors"
    parser.add_argument("--out", type=Path, default=shipped)
    parser.add_argument("--scenes", type=int, default=12_000)
    parser.add_argument("--held-out", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=1_600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    network = train(*drawn(TRAINING, options.scenes), options.steps, options.batch, options.seed)
    facts = {name: str(value) for name, value in vars(options).items() if name != "out"} | {
        "script": "scripts/train_scenes_features.py",
        "labels": str(len(LABELS)),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {platform.system()}, 1 thread, {torch.backends.cpu.get_cpu_capability()}",
    }
    write_tensors(options.out, network.folded(), facts)
    shipped_network = ScenesNetwork(options.out)
    images, labels = drawn(HELD_OUT, options.held_out)
    for size in (48, 64, 96):
        scores = torch.tensor(scored(shipped_network, network.classifier, images, labels, size))
        auc, precision = scores.mean(dim=0).tolist()
        print(f"held out, {size} px: AUC {auc:.3f}, mAP {precision:.3f} over {len(scores)} labels", flush=True)
        facts |= {f"auc_{size}": f"{auc:.4f}", f"map_{size}": f"{precision:.4f}"}
    write_tensors(options.out, network.folded(), facts)
    print(f"{options.out.name}: {options.out.stat().st_size} bytes, {time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
