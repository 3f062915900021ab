"""A tokenizer of diffusers, trained by diffusers' own class, aligned with text here and given back.

Trains a small `VQModel` on a folder data set, imports it, aligns it frozen, fine-tunes it with text, exports it, and
loads what was exported with diffusers. Prints the metrics of each model and what must be equal.

Run: python benchmarks/imported.py --data scenes --out work (one thread; needs the extra `dev`, for diffusers)
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import tavq
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.tokenizer import Tokenizer

SHOWN = ("psnr", "ssim", "fd_scenes", "usage_deep", "perplexity_deep", "retrieval/image_to_text/recall@5",
         "retrieval/text_to_image/recall@5", "probe_retrieval/image_to_text/recall@5")  # fmt: skip


def make_model(size: int, channels: tuple[int, ...]) -> torch.nn.Module:
    """A `VQModel` without attention, a stage for each of `channels`."""
    from diffusers import VQModel

    model: torch.nn.Module = VQModel(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=16,
        num_vq_embeddings=256,
        vq_embed_dim=16,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=size,
    )
    return model


def train_in_diffusers(model: torch.nn.Module, data: Path, size: int, steps: int, batch: int) -> None:
    """Mean absolute error and diffusers' own loss of the quantizer; entries start at features."""
    loader = TrainingLoader(FolderDataset(data, "train"), DataConfig(size=size, flip=0.0), batch, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, (0.9, 0.99))
    for step in range(steps):
        images = next(loader).images
        if step in (0, 2, 4, 8, 16, 32, 64, 128):
            restart_entries(model, images)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20, 2 * (1 - step / steps))
        latents = model.quant_conv(model.encoder(images))  # type: ignore[operator]
        quantized, commitment, _ = model.quantize(latents)  # type: ignore[operator]
        rebuilt = model.decoder(model.post_quant_conv(quantized))  # type: ignore[operator]
        loss = F.l1_loss(rebuilt, images) + commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"diffusers step {step + 1}: l1 {float(F.l1_loss(rebuilt.detach(), images)):.4f}", flush=True)
    loader.close()


@torch.no_grad()
def restart_entries(model: torch.nn.Module, images: Tensor) -> None:
    """Put all entries at features: uniform ones in [-1/k, 1/k] are never chosen in so few steps."""
    features = model.quant_conv(model.encoder(images)).permute(0, 2, 3, 1).flatten(0, 2)  # type: ignore[operator]
    table = model.quantize.embedding.weight  # type: ignore[union-attr]
    table.copy_(features[torch.randperm(len(features))[: len(table)]])


@torch.no_grad()
def encode_in_diffusers(model: torch.nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and reconstructions."""
    quantized, _, (_, _, indices) = model.quantize(model.encode(images).latents)  # type: ignore[operator]
    rebuilt = model.decoder(model.post_quant_conv(quantized))  # type: ignore[operator]
    return indices.view(len(images), *quantized.shape[2:]), rebuilt


def compare(theirs: torch.nn.Module, ours: Tokenizer, images: Tensor) -> str:
    """How far the two implementations are apart on some images.

    Where two entries are equally near to the precision of a float, either may be chosen: these are not compared.
    """
    indices, rebuilt = encode_in_diffusers(theirs, images)
    with torch.no_grad():
        features = ours.encoder(images)[1].permute(0, 2, 3, 1).flatten(0, 2)
        distances = torch.cdist(features, ours.codebook(), compute_mode="donot_use_mm_for_euclid_dist")
    first, second = distances.topk(2, largest=False).values.unbind(1)
    clear = (second - first > 1e-4).view(indices.shape)
    same = int((ours.encode(images) == indices)[clear].sum())
    far = float((ours.decode(indices) - rebuilt).abs().max())
    ties = f"{int((~clear).sum()):,} more are ties"
    return f"{same:,} of {int(clear.sum()):,} indices equal ({ties}), pixels within {far:.1e}"


def evaluate(name: str, model: Path, data: Path) -> None:
    """Print the metrics of a model."""
    result = tavq.evaluate(model, data=data)
    found = {key: result[key].value for key in SHOWN if key in result}
    print(
        f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in found.items() if value is not None), flush=True
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the whole chain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder data set with long text")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 24, 32])
    parser.add_argument("--steps", type=int, nargs=3, default=[300, 400, 100], help="diffusers, frozen, fine-tuned")
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    theirs = make_model(given.size, tuple(given.channels))
    print(f"{sum(parameter.numel() for parameter in theirs.parameters()):,} parameters")
    clock = time.perf_counter()
    train_in_diffusers(theirs, given.data, given.size, given.steps[0], given.batch)
    theirs.eval().save_pretrained(given.out / "diffusers")  # type: ignore[operator]
    print(f"trained by diffusers in {time.perf_counter() - clock:.0f} s")
    imported = tavq.import_checkpoint("diffusers", given.out / "diffusers", out=given.out / "imported", size=given.size)
    test = EvaluationLoader(FolderDataset(given.data, "test"), DataConfig(size=given.size), 32)
    images = torch.cat([batch.images for batch in test])[:200]
    ours = Tokenizer.from_pretrained(imported)
    print("imported:", compare(theirs, ours, images))
    evaluate("imported", imported, given.data)

    frozen = {"train.start_from": str(imported), "train.steps": given.steps[1], "train.batch": given.batch}
    clock = time.perf_counter()
    aligned = tavq.train("align-frozen", data=given.data, out=given.out / "aligned", settings=frozen)
    print(f"aligned, frozen, in {time.perf_counter() - clock:.0f} s")
    before, after = ours.state_dict(), Tokenizer.from_pretrained(aligned).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(Tokenizer.from_pretrained(aligned).encode(images), ours.encode(images))
    print("aligned, frozen: every tensor and index of the imported model is as it was")
    evaluate("aligned, frozen", aligned, given.data)

    settings = {
        "train.start_from": str(aligned),
        "train.steps": given.steps[2],
        "train.batch": given.batch,
        "train.learning_rate": 3e-4,
        "train.adversarial.warmup": given.steps[2] // 4,
        "train.adversarial.discriminator": {"channels": 16, "layers": 2},
    }
    clock = time.perf_counter()
    tuned = tavq.train("align-finetune", data=given.data, out=given.out / "tuned", settings=settings)
    print(f"fine-tuned with text in {time.perf_counter() - clock:.0f} s")
    evaluate("fine-tuned with text", tuned, given.data)
    print("compared:", tavq.compare([aligned, tuned], out=given.out / "compare.html", data=given.data))

    from diffusers import VQModel

    exported = tavq.export_model(tuned, to="diffusers", out=given.out / "exported")
    print("exported:", compare(VQModel.from_pretrained(exported).eval(), Tokenizer.from_pretrained(tuned), images))


if __name__ == "__main__":
    main()
