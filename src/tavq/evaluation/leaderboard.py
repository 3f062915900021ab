"""What a comparison of tokenizers asks beyond `evaluation.tokenizer`: length, speed, robust codes, zero-shot words."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.devices import to_device
from tavq.inspection.aligned import text_of_units
from tavq.interfaces import DEEP, Aligner, Batch
from tavq.metrics.distances import ImageSet, compare_image_sets
from tavq.metrics.record import Baseline, Group, Metric, for_baseline
from tavq.metrics.words import keyed_noise
from tavq.metrics.zero_shot import zero_shot_words
from tavq.nets.features.extractors import FeatureNetwork
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

WORDS = "words"

MAX_WORDS = 200
"""Words that are recognised: the most frequent ones that are in 2 % to 50 % of the texts."""

RAREST, COMMONEST = 0.02, 0.5

CHANGED = 0.1
"""Share of an image's codes that the perturbed distances change."""

REPEATS = 5
"""Times that one batch is encoded and decoded; the fastest counts, which other work on the machine disturbs least."""

COST = Group("cost", "Length and speed", "Of the deep grid, which the decoder reads. Speed is that of this machine.")
TOKENS = Metric("tokens", "Codes an image", COST, better=-1, meaning="Positions times parts.", decimals=0)
BITS = Metric(
    "bits", "Bits an image", COST, better=-1, meaning="Codes times the binary logarithm of their entries.", decimals=0
)
ENCODED = Metric("encoded_per_second", "Codes encoded a second", COST, better=1, meaning="Images to codes.", decimals=0)
DECODED = Metric("decoded_per_second", "Codes decoded a second", COST, better=1, meaning="Codes to images.", decimals=0)
PERTURBED = Baseline(
    "perturbed",
    "a tenth of the codes changed",
    "The same distance after a tenth of each image's codes was replaced by other entries at random: what the mistakes "
    "of a generator cost.",
)


@torch.no_grad()
def measure_beyond(
    tokenizer: Tokenizer,
    batches: Iterable[Batch],
    networks: Sequence[FeatureNetwork] = (),
    store: TextStore | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Metric]:
    """The metrics of a leaderboard that `evaluation.tokenizer.evaluate` does not have.

    - `tokens`, `bits`: the length of an image's code.
    - `encoded_per_second`, `decoded_per_second`: the speed of the first batch on this machine.
    - `perturbed/fd_NETWORK`: the Fréchet distance after a tenth of the codes was changed, from a generator that
      depends on the image's key alone.
    - `zero_shot_words` of a tokenizer with an aligner, where there is a text store.

    Args:
        tokenizer: in evaluation mode.
        batches: images of one size; read once.
        networks: feature networks; those with learned heads are passed over.
        store: the text of the images.
        progress: called with the number of images done after each batch.
    """
    aligner = None if store is None else tokenizer.aligner
    sets = [(ImageSet(network), ImageSet(network)) for network in networks if not network.heads]
    keys: list[str] = []
    embedded: list[Tensor] = []
    costs: list[Metric] = []
    for batch in (to_device(batch, tokenizer.codebook().device) for batch in batches):
        levels = tokenizer.quantize(batch.images)
        indices = levels[DEEP].indices
        costs = costs or measure_cost(tokenizer, batch.images, indices)
        changed = tokenizer.decode(perturb(indices, tokenizer.codebook.sizes, batch.keys)).clamp(-1, 1)
        for perturbed, originals in sets:
            perturbed.update(changed, batch.keys)
            originals.update(batch.images, batch.keys)
        if aligner is not None:
            embedded.append(aligner.embed_images(levels).cpu())
        keys += batch.keys
        if progress is not None:
            progress(len(keys))
    found = list(costs)
    for perturbed, originals in sets:
        found += for_baseline(PERTURBED, compare_image_sets(perturbed, originals)[:1])
    if aligner is not None and store is not None and embedded:
        found += recognise_words(aligner, torch.cat(embedded), keys, store)
    return found


def measure_cost(
    tokenizer: Tokenizer, images: Float[Tensor, "b 3 y x"], indices: Int[Tensor, "b h w *c"]
) -> list[Metric]:
    """How long the code of an image is, and how fast these images are encoded and decoded."""
    sizes, codes = tokenizer.codebook.sizes, indices[0].numel()
    bits = codes / len(sizes) * sum(math.log2(size) for size in sizes)
    encoding = _fastest(lambda: tokenizer.encode(images))
    decoding = _fastest(lambda: tokenizer.decode(indices))
    return [
        TOKENS.measured(codes),
        BITS.measured(bits),
        ENCODED.measured(indices.numel() / encoding),
        DECODED.measured(indices.numel() / decoding),
    ]


def _fastest(call: Callable[[], Tensor]) -> float:
    """The shortest time in seconds of REPEATS calls; one more before them warms up."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        call().flatten()[0].item()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:])


def perturb(
    indices: Int[Tensor, "b h w *c"], sizes: Sequence[int], keys: Sequence[str], share: float = CHANGED
) -> Int[Tensor, "b h w *c"]:
    """Replace a share of each image's codes by other entries of the same part, chosen by the image's key alone.

    Args:
        indices: of a codebook whose parts have these `sizes`.
        sizes: entries of each part; a part with a single entry stays as it is.
        keys: one for each image.
        share: the probability that a code is changed.
    """
    own = indices.flatten(1)
    noise = keyed_noise(keys, 2 * own.shape[1]).to(own.device).double()
    limits = torch.tensor(sizes, device=own.device).repeat(own.shape[1] // len(sizes))
    step = 1 + (noise[:, 1::2] * (limits - 1)).long()  # from 1 to size - 1, so that it is another entry
    other = torch.where(limits > 1, (own + step) % limits, own)
    return torch.where(noise[:, ::2] < share, other, own).view_as(indices)


def recognise_words(
    aligner: Aligner, images: Float[Tensor, "n e"], keys: Sequence[str], store: TextStore
) -> list[Metric]:
    """`zero_shot_words` of images whose vectors are known, for the frequent words of their texts."""
    with_text = [key in store for key in keys]
    texts = [set(store.units(key)[WORDS]) for key in keys if key in store]
    counts = Counter(word for words in texts for word in words)
    chosen = [word for word, count in counts.most_common() if RAREST <= count / len(texts) <= COMMONEST][:MAX_WORDS]
    if len(chosen) < 2:
        return []
    names, vectors = store.vocabulary(WORDS)
    rows = {name: row for row, name in enumerate(names)}
    own = torch.stack([torch.tensor(vectors[rows[word]]).float() for word in chosen])
    embedded = aligner.embed_text(text_of_units(own.to(next(aligner.parameters()).device))).cpu()
    present = torch.tensor([[word in words for word in chosen] for words in texts])
    return zero_shot_words(images[torch.tensor(with_text)], embedded, present)
