"""The nearest entry of a codebook for each feature: exact, in bounded memory, without a matrix of distances.

`argmin over j of |f - e_j|²` equals `argmin over j of |e_j|²/2 - f·e_j`, a matrix product with the half norms as its
bias. Three passes make the answer exact:

1. Score every feature against every entry in float32, with a bound on the rounding error. A feature whose two best
   scores differ by more than the bound is decided.
2. Score the undecided features again in float64.
3. Where float64 does not decide either (ties), compare the differences f - e_j themselves; the lowest index wins.

On ordinary data under one feature in a hundred reaches the second pass and none the third.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tavq.ops.exporting import is_exporting
from tavq.ops.kernels import use_triton
from tavq.ops.rounding import matmul_precision, operand_rounding

# Values in one working buffer: 4 MB of float32, most of which a core's caches hold; a GPU needs larger chunks.
CPU_BUFFER = 2**20
GPU_BUFFER = 2**24


@torch.no_grad()
def find_nearest(
    features: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], exact: bool = True
) -> Int[Tensor, " n"]:
    """The index of the entry at the least Euclidean distance from each feature, equal to a float64 brute force.

    Accepts any floating dtype and compares the values as they are. Of equal distances the lowest index wins. Without a
    gradient, whatever autocast says. Entries must be finite; a feature with NaN or infinity gets an arbitrary valid
    index. Under torch.export only the first pass is traced.

    Costs one float32 product [n, d] × [d, k] and about a tenth more. Besides the result and 24 bytes a feature it needs
    at most 16 MB on a CPU (256 MB on a GPU) for any n and k; exact ties add twice that and a copy of the entries.

    Args:
        features: the features to replace.
        entries: the codebook.
        exact: False: on a GPU the first pass alone decides, as in training, where the CPU need not then wait to hear
            how many features are undecided. Its answer is a nearest entry up to the rounding of float32.
    """
    assert len(entries) > 0, "a table needs at least one entry"
    if is_exporting():
        return _find_by_scores(features, entries)
    if len(features) == 0:
        return torch.empty(0, dtype=torch.long, device=features.device)
    if not exact and features.device.type != "cpu":
        return _find_in_one_pass(features, entries)
    with torch.autocast(features.device.type, enabled=False):
        search = _NearestSearch(features, entries)
        result = search.scan(torch.float32)
        undecided = result.undecided().nonzero().squeeze(1)
        if len(undecided):
            again = search.scan(torch.float64, undecided)
            result.index[undecided] = again.index
            ties = again.undecided()
            if ties.any():
                limit = (again.best + 2 * again.error)[ties]
                result.index[undecided[ties]] = search.resolve_ties(undecided[ties], limit)
    return result.index


def _find_by_scores(features: Tensor, entries: Tensor) -> Tensor:
    """The first pass alone, in one matrix: the rounding of float32 decides between entries that are nearly as near."""
    mean = entries.mean(0, keepdim=True)
    table = entries - mean
    return (table.square().sum(1) / 2 - (features - mean) @ table.T).argmin(1)


def _find_in_one_pass(features: Tensor, entries: Tensor) -> Tensor:
    """The first pass alone, in few launches and bounded memory."""
    with torch.autocast(features.device.type, enabled=False), matmul_precision(tf32=False):
        entries = entries.float()
        mean = entries.mean(0)
        table = entries - mean
        bias, table_t = table.square().sum(1).div_(2), table.T
        chunks = features.split(max(1, GPU_BUFFER // len(entries)))
        found = [torch.addmm(bias, chunk.float() - mean, table_t, alpha=-1).argmin(1) for chunk in chunks]
    return found[0] if len(found) == 1 else torch.cat(found)


@dataclass(frozen=True)
class _BestTwo:
    """For each feature the best entry, its score, the second-best score and a bound on the error of a score."""

    index: Int[Tensor, " n"]
    best: Float[Tensor, " n"]
    second: Float[Tensor, " n"]
    error: Float[Tensor, " n"]

    def undecided(self) -> Bool[Tensor, " n"]:
        # negated, so that NaN (an overflow) counts as undecided
        return ~(self.second - self.best > 2 * self.error)

    def merge(self, later: "_BestTwo") -> "_BestTwo":
        """The two best of this part of the entries and a later part."""
        return _BestTwo(
            torch.where(later.best < self.best, later.index, self.index),
            torch.minimum(self.best, later.best),
            torch.minimum(torch.maximum(self.best, later.best), torch.minimum(self.second, later.second)),
            torch.maximum(self.error, later.error),
        )


class _NearestSearch:
    """Features and entries, centred at the mean of the entries chunk by chunk.

    Centring both keeps the distances and removes a common offset, in which digits would cancel. The rounding of the
    mean itself is harmless, as the same mean is subtracted everywhere.
    """

    def __init__(self, features: Tensor, entries: Tensor) -> None:
        self.features = features
        self.entries = entries
        self.width = features.shape[1]
        self.mean = entries.mean(0, dtype=torch.float32).nan_to_num(0.0, 0.0, 0.0)
        self.buffer = CPU_BUFFER if features.device.type == "cpu" else GPU_BUFFER
        self.table_size = max(1, min(len(entries), 2**14, self.buffer // max(self.width, 1)))

    def scan(self, dtype: torch.dtype, selected: Tensor | None = None) -> _BestTwo:
        """The two best entries of all features, or of the `selected` ones, by scores in `dtype`."""
        parts = (self._scan_table(first, table, bias, selected) for first, table, bias in self._tables(dtype))
        return reduce(_BestTwo.merge, parts)

    def _scan_table(self, first: int, table: Tensor, bias: Tensor, selected: Tensor | None) -> _BestTwo:
        if selected is None and table.dtype == torch.float32 and use_triton(table.device):
            return self._scan_in_one_launch(first, table, bias)
        scores = table.new_empty(0)
        results = []
        for features in self._chunks(table, selected):
            size = len(table) * len(features)
            if not len(scores):  # the first chunk is the largest
                scores = table.new_empty(size)
            out = scores[:size].view(len(table), len(features))
            torch.addmm(bias[:, None], table, features.T, alpha=-1, out=out)
            results.append((*_two_smallest(out), torch.linalg.vector_norm(features, dim=1)))
        index, best, second, norms = (torch.cat(column) for column in zip(*results, strict=True))
        return _BestTwo(index + first, best, second, self._error(norms, table))

    def _scan_in_one_launch(self, first: int, table: Tensor, bias: Tensor) -> _BestTwo:
        from tavq.ops.kernels.best_two import best_two

        tf32 = operand_rounding(table.device) > 0
        index, best, second, norms = best_two(self.features, self.mean, table, bias, tf32)
        return _BestTwo(index + first, best, second, self._error(norms, table))

    def resolve_ties(self, selected: Tensor, limit: Tensor) -> Tensor:
        """The nearest entry of the `selected` features by float64 differences, among entries scoring up to `limit`."""
        distance = limit.new_full((len(selected),), torch.inf)
        nearest = torch.zeros_like(selected)
        distinct = _mark_first_of_equal(self.entries)
        for first, table, bias in self._tables(torch.float64):
            usable = torch.zeros(len(bias), 1, dtype=torch.bool, device=bias.device)
            usable[:, 0][: len(self.entries) - first] = distinct[first : first + len(bias)]
            start = 0
            for features in self._chunks(table, selected):
                scores = torch.addmm(bias[:, None], table, features.T, alpha=-1)
                near = (scores <= limit[start : start + len(features)]) & usable
                for pairs in near.nonzero().split(max(1, self.buffer // 2 // self.width)):
                    self._keep_nearest(selected, start + pairs[:, 1], first + pairs[:, 0], distance, nearest)
                start += len(features)
        return nearest

    def _keep_nearest(self, selected: Tensor, which: Tensor, entry: Tensor, distance: Tensor, nearest: Tensor) -> None:
        """Update the least `distance` and the `nearest` entry, in place, by pairs of a feature and an entry.

        Args:
            selected: the features that are resolved.
            which: of each pair the position of its feature in `selected`.
            entry: of each pair its entry.
            distance: the least squared distance of each selected feature until now.
            nearest: the entry at that distance.
        """
        difference = self.features[selected[which]].double() - self.entries[entry].double()
        pair = difference.square_().sum(1)
        before = distance.clone()
        distance.scatter_reduce_(0, which, pair, "amin")
        nearest.masked_fill_(distance < before, len(self.entries))  # above every index, for the minimum below
        equal = pair == distance[which]
        nearest.scatter_reduce_(0, which[equal], entry[equal], "amin")

    def _tables(self, dtype: torch.dtype) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield the entries in parts: index of the first, the centred entries, half their squared norms.

        A part is padded to whole groups (see `_two_smallest`) with entries at infinite distance.
        """
        for first in range(0, len(self.entries), self.table_size):
            part = _centre(self.entries[first : first + self.table_size], self.mean, dtype)
            group = _group_size(len(part))
            table = part.new_zeros(-(-len(part) // group) * group, self.width)
            table[: len(part)] = part
            bias = table.new_full((len(table),), torch.inf)
            bias[: len(part)] = part.square().sum(1, dtype=torch.float64) / 2
            yield first, table, bias

    def _chunks(self, table: Tensor, selected: Tensor | None) -> Iterator[Tensor]:
        """Yield the centred features in chunks whose scores against `table` fill one buffer."""
        step = max(1, self.buffer * 4 // table.itemsize // max(table.shape))
        if not table.is_cuda:  # half as many scores lie nearer to a core; under 512 the product suffers more
            step = max(min(step, 512), step // 2)
        count = len(self.features) if selected is None else len(selected)
        for start in range(0, count, step):
            chunk = slice(start, start + step) if selected is None else selected[start : start + step]
            yield _centre(self.features[chunk], self.mean, table.dtype)

    def _error(self, norms: Tensor, table: Tensor) -> Tensor:
        """A bound on the rounding error of scores, for features with these norms and the entries of `table`.

        With u the unit roundoff, a = f - c and b = e - c: centring costs u|a| and u|b|, a product summed over d terms
        in any order (d + 1)u(|a||b| + |b|²/2), the bias 2u|b|²/2; together below (d + 16)u·|b|(|a| + |b|/2), with room
        for the rounding of the norms themselves. Operands rounded to fewer digits add twice that rounding. Underflow
        adds one smallest number per term. In float64 the bound covers the rounding of the brute force too,
        (d + 2)u|a - b|², so that all its near ties are resolved by its own formula.
        """
        reach = torch.linalg.vector_norm(table, dim=1).max()
        rounding = (self.width + 16) * torch.finfo(table.dtype).eps / 2
        underflow = (self.width + 16) * torch.finfo(table.dtype).tiny
        if table.dtype == torch.float64:
            return rounding * (norms + reach).square() + underflow
        # doubled before it is scaled: where a sum may overflow, this does, and the feature is undecided
        largest = 2 * reach * (norms + reach / 2)
        return (rounding / 2 + operand_rounding(norms.device)) * largest + underflow


def _centre(values: Tensor, mean: Tensor, dtype: torch.dtype) -> Tensor:
    """Subtract the mean, rounding once to `dtype`."""
    return (values.to(torch.promote_types(values.dtype, dtype)) - mean).to(dtype)


def _group_size(k: int) -> int:
    return max(1, math.isqrt(k))


def _two_smallest(scores: Float[Tensor, "k n"]) -> tuple[Tensor, Tensor, Tensor]:
    """Index and value of the minimum of each column, and the second-smallest value.

    argmin is several times slower than amin, so it only runs over the minima of √k groups and then over the best group.
    """
    k, n = scores.shape
    size = _group_size(k)
    groups = scores.view(-1, size, n)
    minima = groups.amin(1)
    best, group = minima.min(0)
    inside = groups.gather(0, group.expand(1, size, n))[0]
    position = inside.min(0).indices
    minima.scatter_(0, group[None], torch.inf)
    inside.scatter_(0, position[None], torch.inf)
    return group * size + position, best, torch.minimum(minima.amin(0), inside.amin(0))


def _mark_first_of_equal(entries: Float[Tensor, "k d"]) -> Bool[Tensor, " k"]:
    """Mark entries that equal no earlier one: of equal entries the first has the lowest index."""
    inverse = torch.unique(entries, dim=0, return_inverse=True)[1]
    indices = torch.arange(len(entries), device=entries.device)
    first = torch.full_like(indices, len(entries)).scatter_reduce_(0, inverse, indices, "amin")
    return first[inverse] == indices
