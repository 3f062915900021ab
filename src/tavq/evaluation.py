"""Everything that is measured of a tokenizer, in one pass over a split."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tavq.core.errors import TrainingError, UsageError
from tavq.interfaces import DEEP, Aligner, Batch, Codebook, Quantized, Quantizer, TextFeatures, TextUnits, to_device
from tavq.metrics.alignment import code_text_cosine, probe, retrieval
from tavq.metrics.codes import CodeUsage
from tavq.metrics.collapse import warning as collapse_warning
from tavq.metrics.distances import PictureSet, set_distances
from tavq.metrics.images import SMALLEST_MS_SSIM, PictureMean, l1, l2, ms_ssim, psnr, ssim
from tavq.metrics.words import MASKED, MaskedWords, WordRelations, keyed_noise
from tavq.nets.features import FeatureNetwork, perceptual_distances


@runtime_checkable
class Tokenizes(Protocol):
    """What evaluation asks of a tokenizer."""

    aligner: Aligner | None
    codebook: Codebook
    quantizer: Quantizer

    def quantize(self, images: Float[Tensor, "b 3 y x"]) -> dict[int, Quantized]:
        """The quantised grids by level."""
        ...

    def decode(self, indices: Int[Tensor, "b h w *c"]) -> Float[Tensor, "b 3 y x"]:
        """Pictures of the deep level's indices."""
        ...


class Evaluation:
    """The running measurements of one split; `evaluate` drives it."""

    def __init__(self, sizes: Sequence[int], networks: Sequence[FeatureNetwork]) -> None:
        self.means = {measure.__name__: PictureMean(measure) for measure in (psnr, ssim, l1, l2)}
        self.ms_ssim = PictureMean(ms_ssim)
        self.networks = networks
        self.looks = {n.title("distance"): PictureMean(partial(perceptual_distances, n)) for n in networks if n.heads}
        self.sets = [(PictureSet(network), PictureSet(network)) for network in networks if not network.heads]
        self.codes = CodeUsage(sizes)
        self.pairs = _Pairs()
        self.filled = [MaskedWords(count) for count in MASKED]
        self.relations = WordRelations()
        self.images = 0
        self.size: tuple[int, ...] = ()

    def update(self, tokenizer: Tokenizes, batch: Batch) -> None:
        """Counts a batch, which is on the tokenizer's device."""
        size = tuple(batch.images.shape[-2:])
        if self.size not in ((), size):
            raise UsageError(f"Pictures of one size can be evaluated together; got {self.size} and then {size}.")
        levels = tokenizer.quantize(batch.images)
        reconstruction = _finite(tokenizer.decode(levels[DEEP].indices), "reconstructions").clamp(-1, 1)
        for mean in self.means.values():
            mean.update(reconstruction, batch.images)
        if min(size) >= SMALLEST_MS_SSIM:
            self.ms_ssim.update(reconstruction, batch.images)
        for mean in self.looks.values():
            mean.update(reconstruction, batch.images)
        for rebuilt, originals in self.sets:
            rebuilt.update(reconstruction, batch.keys)
            originals.update(batch.images, batch.keys)
        self.codes.update(levels[DEEP].indices)
        if batch.text is not None:
            self.pairs.update(tokenizer.aligner, levels, batch.text, batch.keys)
            if tokenizer.aligner is not None and batch.text.whole is not None:
                self._ask_of_words(tokenizer.aligner, levels, batch.text, batch.keys)
        self.images, self.size = self.images + len(batch.images), size

    def _ask_of_words(
        self, aligner: Aligner, levels: Mapping[int, Quantized], text: TextFeatures, keys: Sequence[str]
    ) -> None:
        assert text.whole is not None
        noise = keyed_noise(keys, text.whole.mask.shape[1]).to(text.whole.mask.device)
        for measure in self.filled:
            filled = aligner.fill_words(levels, text, noise, measure.count)
            if filled is not None:
                measure.update(*filled)
        cosines = aligner.relations(levels, text)
        if cosines is not None:
            self.relations.update(*cosines)

    def compute(self) -> dict[str, Any]:
        """The result of `evaluate`."""
        result: dict[str, Any] = {"images": self.images, "size": list(self.size)}
        result |= {name: mean.compute() for name, mean in self.means.items()}
        result |= {"ms_ssim": self.ms_ssim.compute()} | {name: mean.compute() for name, mean in self.looks.items()}
        for rebuilt, originals in self.sets:
            result |= set_distances(rebuilt, originals)
        result |= self.codes.compute() | self.pairs.compute()
        for measure in self.filled:
            result |= measure.compute()
        result |= self.relations.compute()
        return result | {
            "feature_weights": {n.title("distance") if n.heads else n.name: n.sha256 for n in self.networks}
        }


class _Pairs:
    """What is kept of each picture that has text: a vector of its codes and one of its text, in two spaces."""

    def __init__(self) -> None:
        self.keys: dict[str, list[str]] = {"aligned": [], "probed": []}
        self.rows: dict[str, list[tuple[Tensor, Tensor]]] = {"aligned": [], "probed": []}

    def update(
        self, aligner: Aligner | None, levels: Mapping[int, Quantized], text: TextFeatures, keys: Sequence[str]
    ) -> None:
        if aligner is not None:
            self._keep("aligned", _has_text(text), keys, aligner.embed_images(levels), aligner.embed_text(text))
        sentences = text.sentences
        codes = levels[DEEP].entries.mean(dim=(2, 3))
        self._keep("probed", sentences.mask.any(dim=1), keys, codes, _mean_unit(sentences))

    def _keep(self, kind: str, kept: Bool[Tensor, " b"], keys: Sequence[str], codes: Tensor, texts: Tensor) -> None:
        self.keys[kind] += [key for key, keep in zip(keys, kept.tolist(), strict=True) if keep]
        codes, texts = _finite(codes[kept], f"{kind} codes"), _finite(texts[kept], f"{kind} texts")
        self.rows[kind].append((codes.float().cpu(), texts.float().cpu()))

    def _matrices(self, kind: str) -> tuple[Tensor, Tensor]:
        """Rows in the order of their keys' hashes: any order of the loader gives the same, and it says nothing."""
        if not self.rows[kind]:
            return torch.zeros(0, 1), torch.zeros(0, 1)
        hashes = [hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest() for key in self.keys[kind]]
        order = torch.tensor(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=torch.int64)
        codes, texts = (torch.cat(column)[order] for column in zip(*self.rows[kind], strict=True))
        return codes, texts

    def compute(self) -> dict[str, Any]:
        aligned, probed = self._matrices("aligned"), self._matrices("probed")
        return {
            "images_with_text": len(probed[0]),
            **code_text_cosine(*aligned),
            "retrieval": retrieval(*aligned) if len(aligned[0]) else None,
            **probe(*probed),
        }


def _finite(values: Tensor, what: str) -> Tensor:
    if not bool(values.isfinite().all()):
        raise TrainingError(
            f"The tokenizer's {what} are not finite, so nothing can be measured; use an earlier checkpoint."
        )
    return values


def _has_text(text: TextFeatures) -> Bool[Tensor, " b"]:
    tables = [text.words, text.phrases, text.sentences] + ([] if text.whole is None else [text.whole])
    return torch.stack([table.mask.any(dim=1) for table in tables]).any(dim=0)


def _mean_unit(units: TextUnits) -> Float[Tensor, "b t"]:
    """The mean of each picture's unit vectors; padding does not count."""
    weights = units.mask[:, :, None].to(units.vectors.dtype)
    return torch.where(units.mask[:, :, None], units.vectors, 0).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


@torch.no_grad()
def evaluate(
    tokenizer: Tokenizes,
    batches: Iterable[Batch],
    networks: Sequence[FeatureNetwork] = (),
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """All measurements of a tokenizer on a split, ready for JSON: None where one is undefined, never NaN.

    - `images`, `size` [y, x]: what was measured. Reconstructions are clamped to [-1, 1] and not rounded to 8 bits.
    - `psnr`, `ssim`, `l1`, `l2`: means over pictures (`metrics.images`).
    - `ms_ssim`: the same, None for pictures below 176 x 176.
    - `fd_<network>`, `fd_<network>_warning`, `kid_<network>`, `kid_<network>_standard_error` for each of `networks`
      (`metrics.distances`); of a network with learned heads instead its distance, `lpips_vgg`, as a mean over pictures.
      `feature_weights`: their sha256 by name.
    - `usage`, `perplexity`, `dead`, `top_entries` of the deep grid (`metrics.codes`); `usage_warning` where they
      show a collapse.
    - `code_text_cosine`, `code_text_cosine_shuffled`, `retrieval`: None without an aligner or text.
    - `probe_code_text_cosine`, `probe_retrieval`: for any tokenizer, None without text (`metrics.alignment`).
    - `masked_words_recall@1_of_1`, `masked_words_recall@1_of_3`, `word_code_mse`: None where the aligner has no
      answer, as LG-VQ's has (`metrics.words`).
    - `images_with_text`: pictures with at least one sentence, on which the probe stands.

    The tokenizer should be in evaluation mode. Memory is that of one batch, plus, for each picture with text, its
    mean code, its mean sentence and its two embeddings.

    Args:
        tokenizer: what encodes and decodes.
        batches: pictures of one size; read once.
        networks: feature networks of the distances, on the tokenizer's device.
        progress: called with the number of pictures done after each batch.

    Raises:
        TrainingError: the tokenizer gives NaN or infinity.
        UsageError: the pictures differ in size or are too small for a metric.
    """
    entries = tokenizer.codebook()
    running = Evaluation(tokenizer.codebook.sizes, networks)
    for batch in batches:
        running.update(tokenizer, to_device(batch, entries.device))
        if progress is not None:
            progress(running.images)
    result = running.compute()
    warning = collapse_warning(result, running.codes, tokenizer.quantizer.random)
    return result | {"usage_warning": warning}
