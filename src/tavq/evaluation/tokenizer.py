"""All metrics of a tokenizer, in one pass over a split."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tavq.core.devices import to_device
from tavq.core.errors import DataError, UsageError
from tavq.data.transforms import to_uint8
from tavq.evaluation.word_codes import WORDS, WordCodes
from tavq.evaluation.word_probe import WordProbe
from tavq.interfaces import DEEP, Aligner, Batch, Codebook, Quantized, Quantizer, TextFeatures, TextUnits
from tavq.metrics import intervals
from tavq.metrics.alignment import code_text_cosine, probe, retrieval
from tavq.metrics.codes import LEVEL_NAMES, CodeUsage, Surprisal, measure_spacing
from tavq.metrics.collapse import describe_collapse
from tavq.metrics.distances import ImageSet, compare_image_sets
from tavq.metrics.images import ImageScores, perceptual_metric
from tavq.metrics.keyed import KeyedMetric
from tavq.metrics.record import Evaluation, Interval, Metric
from tavq.metrics.words import MASKED, MaskedWords, WordRelations, keyed_noise
from tavq.nets.features.extractors import FeatureNetwork, perceptual_distances
from tavq.ops.checks import require_finite
from tavq.ops.collective import all_gather_uneven
from tavq.ops.gathering import gather_values


@runtime_checkable
class SupportsReconstruction(Protocol):
    """The part of a tokenizer that evaluation uses."""

    aligner: Aligner | None
    codebook: Codebook
    quantizer: Quantizer

    @property
    def codebooks(self) -> Mapping[int, Codebook]:
        """The codebook of each level."""
        ...

    def quantize(self, images: Float[Tensor, "b 3 y x"]) -> dict[int, Quantized]:
        """Quantized grids by level."""
        ...

    def decode(self, indices: Int[Tensor, "b h w *c"]) -> Float[Tensor, "b 3 y x"]:
        """Images of the deep level's indices."""
        ...


class TokenizerEvaluator:
    """The running metrics of one split; `evaluate` drives it."""

    def __init__(
        self, sizes: Sequence[int], networks: Sequence[FeatureNetwork], levels: Sequence[int] = (DEEP,)
    ) -> None:
        self.networks = networks
        distances = {perceptual_metric(n): partial(perceptual_distances, n) for n in networks if n.heads}
        self.scores = ImageScores(distances)
        self.pixels = PixelHash()
        self.sets = [(ImageSet(network), ImageSet(network)) for network in networks if not network.heads]
        self.codes = {level: CodeUsage(sizes) for level in levels}
        self.chosen: list[tuple[Sequence[str], Tensor]] = []
        self.pairs = CodeTextPairs()
        self.word_probe = WordProbe()
        self.word_codes = WordCodes()
        self.masked = [MaskedWords(count) for count in MASKED]
        self.relations = WordRelations()
        self.images = 0
        self.size: tuple[int, ...] = ()

    def update(self, tokenizer: SupportsReconstruction, batch: Batch) -> None:
        """Add a batch, which is on the tokenizer's device."""
        self._note_size({self.size, tuple(batch.images.shape[-2:])})
        levels = tokenizer.quantize(batch.images)
        reconstruction = require_finite(
            tokenizer.decode(levels[DEEP].indices), "The tokenizer's reconstructions"
        ).clamp(-1, 1)
        self.pixels.update(batch.keys, batch.images)
        self.scores.update(batch.keys, reconstruction, batch.images)
        for rebuilt, originals in self.sets:
            rebuilt.update(reconstruction, batch.keys)
            originals.update(batch.images, batch.keys)
        for level, codes in self.codes.items():
            codes.update(levels[level].indices)
        self.chosen.append((batch.keys, levels[DEEP].indices.to("cpu", torch.int32)))
        if batch.text is not None:
            self.pairs.update(tokenizer.aligner, levels, batch.text, batch.keys)
            self.word_probe.update(batch.keys, levels[DEEP].indices, batch.text.words)
            if tokenizer.aligner is not None and WORDS in tokenizer.aligner.entry_levels:
                level = tokenizer.aligner.entry_levels[WORDS]
                self.word_codes.update(batch.keys, levels[level].indices, tokenizer.codebooks[level].sizes)
            if tokenizer.aligner is not None and batch.text.full_text is not None:
                self._update_words(tokenizer.aligner, levels, batch.text, batch.keys)
        self.images += len(batch.images)

    def _note_size(self, sizes: set[tuple[int, ...]]) -> None:
        found = sorted(sizes - {()})
        if len(found) > 1:
            raise UsageError(f"Images of one size can be evaluated together; got {found[0]} and {found[1]}.")
        self.size = found[0] if found else ()

    def _update_words(
        self, aligner: Aligner, levels: Mapping[int, Quantized], text: TextFeatures, keys: Sequence[str]
    ) -> None:
        assert text.full_text is not None
        noise = keyed_noise(keys, text.full_text.mask.shape[1]).to(text.full_text.mask.device)
        for masked in self.masked:
            filled = aligner.fill_words(levels, text, noise, masked.count)
            if filled is not None:
                masked.update(keys, *filled)
        cosines = aligner.relations(levels, text)
        if cosines is not None:
            self.relations.update(keys, *cosines)

    def _word_metrics(self) -> list[MaskedWords | WordRelations]:
        return [*self.masked, self.relations]

    def join(self) -> None:
        """Gather the metrics of all processes, in each of them.

        Raises:
            DataError: an image was measured twice.
        """
        gathered = gather_values([self.images, self.size])
        self.images = sum(images for images, _ in gathered)
        self._note_size({tuple(size) for _, size in gathered})
        for metric in (self.pixels, self.scores, *self._word_metrics()):
            metric.join()
        if self.images != len(self.pixels.records):
            raise DataError(
                f"{self.images} images were measured and {len(self.pixels.records)} of them differ by key; each "
                "image must be measured once, by one process."
            )
        for codes in self.codes.values():
            codes.join()
        self.pairs.join()
        self.word_probe.join()
        self.word_codes.join()
        for rebuilt, originals in self.sets:
            rebuilt.join()
            originals.join()

    def compute(self, tokenizer: SupportsReconstruction) -> Evaluation:
        """The result of `evaluate`, once all processes are joined."""
        metrics = self.scores.compute()
        for rebuilt, originals in self.sets:
            metrics += compare_image_sets(rebuilt, originals)
        for level, codes in self.codes.items():
            interval = self._perplexity_interval() if level == DEEP else None
            metrics += codes.compute(
                LEVEL_NAMES[level], interval, describe_collapse(codes, tokenizer.quantizer.stochastic)
            )
            metrics += measure_spacing(tokenizer.codebooks[level]().detach(), LEVEL_NAMES[level])
        metrics += self.pairs.compute()
        metrics += self.word_codes.compute(tokenizer.aligner, tokenizer.quantizer, tokenizer.codebooks, self.word_probe)
        metrics += self.word_probe.compute(tokenizer.quantizer, tokenizer.codebook)
        metrics += [words.compute() for words in self._word_metrics()]
        weights = {n.metric_name("distance") if n.heads else n.name: n.sha256 for n in self.networks}
        details = {
            "images": self.images,
            "size": list(self.size),
            "images_with_text": self.pairs.with_text,
            "top_entries": self.codes[DEEP].top_entries(),
            "feature_weights": weights,
            "protocol": self._protocol(weights),
        }
        return Evaluation(tuple(metrics), details)

    def _perplexity_interval(self) -> Interval | None:
        surprises = Surprisal(self.codes[DEEP])
        for keys, indices in self.chosen:
            surprises.update(keys, indices.long())
        surprises.join()
        return surprises.interval()

    def _protocol(self, weights: Mapping[str, str]) -> dict[str, Any]:
        """What must be the same to reproduce the values."""
        return {
            "images": {"count": self.images, "size": list(self.size), "sha256": self.pixels.compute()},
            "reconstructions": {"range": [-1, 1], "clamped": True, "rounded_to_8_bits": False},
            "reference": "the originals of the same images",
            "feature_weights": dict(weights),
            "intervals": {**intervals.ABOUT, "over": "images"},
        }


class PixelHash(KeyedMetric):
    """One hash of all pixels that were measured, by which others check that theirs are the same."""

    def update(self, keys: Sequence[str], images: Float[Tensor, "b 3 y x"]) -> None:
        for key, image in zip(keys, to_uint8(images).cpu().numpy(), strict=True):
            self._add(key, hashlib.sha256(image.tobytes()).hexdigest())

    def compute(self) -> str:
        """The sha256 of one line per image, ordered by key: the sha256 of its bytes [3 y x], two spaces, its key."""
        lines = "".join(f"{digest}  {key}\n" for key, digest in self.ordered())
        return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


class CodeTextPairs:
    """For each image with text, a vector of its codes and one of its text, by the aligner and for the probe."""

    def __init__(self) -> None:
        self.keys: dict[str, list[str]] = {"aligned": [], "probed": []}
        self.vectors: dict[str, list[tuple[Tensor, Tensor]]] = {"aligned": [], "probed": []}

    def update(
        self, aligner: Aligner | None, levels: Mapping[int, Quantized], text: TextFeatures, keys: Sequence[str]
    ) -> None:
        """Add a batch."""
        if aligner is not None:
            self._keep("aligned", text.has_text(), keys, aligner.embed_images(levels), aligner.embed_text(text))
        sentences = text.sentences
        codes = levels[DEEP].entries.mean(dim=(2, 3))
        self._keep("probed", sentences.mask.any(dim=1), keys, codes, _mean_unit(sentences))

    def _keep(self, kind: str, kept: Bool[Tensor, " b"], keys: Sequence[str], codes: Tensor, texts: Tensor) -> None:
        self.keys[kind] += [key for key, keep in zip(keys, kept.tolist(), strict=True) if keep]
        codes, texts = (
            require_finite(codes[kept], f"The tokenizer's {kind} codes"),
            require_finite(texts[kept], f"The tokenizer's {kind} texts"),
        )
        self.vectors[kind].append((codes.float().cpu(), texts.float().cpu()))

    def join(self) -> None:
        """Gather the vectors of all processes, in each of them."""
        gathered = gather_values(self.keys)
        for kind, rows in self.vectors.items():
            self.keys[kind] = [key for keys in gathered for key in keys[kind]]
            codes, texts = (all_gather_uneven(column) for column in _stack(rows))
            self.vectors[kind] = [(codes, texts)]

    def _matrices(self, kind: str) -> tuple[Tensor, Tensor]:
        """The vectors ordered by the hashes of their keys: independent of the loader's order and of the images."""
        hashes = [hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest() for key in self.keys[kind]]
        order = torch.tensor(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=torch.int64)
        codes, texts = _stack(self.vectors[kind])
        return codes[order], texts[order]

    @property
    def with_text(self) -> int:
        """Images with at least one sentence, once all processes are joined."""
        return len(self.keys["probed"])

    def compute(self) -> list[Metric]:
        """Cosine and retrieval in the aligner's space, and the probe."""
        aligned, probed = self._matrices("aligned"), self._matrices("probed")
        ranked = retrieval(*aligned) if len(aligned[0]) else []
        return [*probe(*probed), *code_text_cosine(*aligned), *ranked]


def _stack(rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if not rows:
        return torch.zeros(0, 1), torch.zeros(0, 1)
    codes, texts = (torch.cat(column) for column in zip(*rows, strict=True))
    return codes, texts


def _mean_unit(units: TextUnits) -> Float[Tensor, "b t"]:
    """The mean vector of each image's units, without the padding."""
    weights = units.mask[:, :, None].to(units.vectors.dtype)
    return torch.where(units.mask[:, :, None], units.vectors, 0).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


@torch.no_grad()
def evaluate(
    tokenizer: SupportsReconstruction,
    batches: Iterable[Batch],
    networks: Sequence[FeatureNetwork] = (),
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """All metrics of a tokenizer on a split.

    Several processes may each measure a part of the split; all return the result of a single process. Integer sums and
    means over images are the same to the last bit if the batches are; Fréchet distances are the same up to rounding.

    - Reconstruction: `psnr`, `ssim`, `ms_ssim`, `l1`, `l2` (`metrics.images`), of reconstructions that are clamped to
      [-1, 1] and not rounded to 8 bits. For each of `networks` `fd_NETWORK` and `kid_NETWORK` (`metrics.distances`);
      for one with learned heads its distance, such as `lpips_vgg`.
    - Codebook: `usage_deep`, `perplexity_deep`, `dead_deep`, `spacing_deep`, `scale_deep` of the grid that the decoder
      reads, and the same of `low` and `middle` if an aligner reads these levels (`metrics.codes`).
    - Text: `code_text_cosine`, `retrieval/…` in the aligner's space; `probe_code_text_cosine`, `probe_retrieval/…` for
      any tokenizer (`metrics.alignment`), as is `probe_word_code_mse` (`metrics.word_probe`);
      `word_code_lift` says whether the codes that a word finds occur where it does (`metrics.word_codes`);
      `masked_words_recall@1_of_1`, `…_of_3` and `word_code_mse` of an aligner (`metrics.words`).

    Values are None where undefined: without an aligner or text, or where the aligner does not fill in words. Intervals
    are over images; usage, dead entries, ranks and Fréchet distances have none, as they are not means over images.

    Details: `images` and `size` [y, x] say what was measured, `images_with_text` how many of them the probe uses;
    `top_entries` are the most frequent entries; `feature_weights` the sha256 of each network; `protocol` is what others
    need to reproduce the values, as far as it is known here.

    The tokenizer should be in evaluation mode. Memory is that of one batch, plus, for each image, its scores and
    indices and, where it has text, its mean code, its mean sentence, its two embeddings and each distinct word.

    Args:
        tokenizer: the tokenizer.
        batches: images of one size, those of this process; read once.
        networks: feature networks of the distances, on the tokenizer's device.
        progress: called with the number of images done after each batch.

    Raises:
        TrainingError: the tokenizer returns NaN or infinity.
        DataError: an image came twice.
        UsageError: the images differ in size or are too small for a metric.
    """
    entries = tokenizer.codebook()
    aligned = tokenizer.aligner.levels if tokenizer.aligner is not None else ()
    levels = sorted({DEEP, *aligned}, reverse=True)  # what the decoder reads comes first
    running = TokenizerEvaluator(tokenizer.codebook.sizes, networks, levels)
    for batch in batches:
        running.update(tokenizer, to_device(batch, entries.device))
        if progress is not None:
            progress(running.images)
    running.join()
    return running.compute(tokenizer)
