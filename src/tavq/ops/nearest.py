"""The index of the nearest entry of a table for each row: exact, in bounded memory, without a matrix of distances.

`argmin over j of |r - e_j|²` equals `argmin over j of |e_j|²/2 - r·e_j`, a matrix product with the half norms as its
bias. Three passes make the answer exact:

1. every row against every entry in float32, with a bound on the rounding: a row whose two best entries differ by more
   than the bound is decided;
2. the others again in float64;
3. what float64 cannot decide either (ties) by the differences themselves, the lowest index first.

On ordinary data under one row in a hundred reaches the second pass and none the third.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Numbers in one working buffer: 4 MB of float32, most of which a core's caches keep; a GPU needs larger pieces.
CPU_BUFFER = 2**20
GPU_BUFFER = 2**24

# What a float32 product may round its operands to: TF32 keeps 10 bits and may cut instead of round, bfloat16 keeps 7.
OPERAND_ROUNDING = {"tf32": 2.0**-10, "high": 2.0**-10, "bf16": 2.0**-7, "medium": 2.0**-7}


@torch.no_grad()
def nearest(rows: Float[Tensor, "n d"], entries: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """The index of the entry at least Euclidean distance from each row, equal to a float64 brute force.

    Any floating dtype may come in and its values are compared as they are. Equal distances give the lowest index.
    Carries no gradient and ignores autocast. A row that holds NaN or infinity gets an index in range that means
    nothing; entries must be finite.

    Costs one float32 product [n, d] × [d, k] and about a tenth more. Beyond the result and 24 bytes a row it needs at
    most 16 MB on a CPU (256 MB on a GPU) whatever n and k; exact ties add twice that and a copy of the entries.
    """
    assert len(entries) > 0, "a table needs at least one entry"
    if len(rows) == 0:
        return torch.empty(0, dtype=torch.long, device=rows.device)
    with torch.autocast(rows.device.type, enabled=False):
        search = _Search(rows, entries)
        found = search.scan(torch.float32)
        open_rows = found.undecided().nonzero().squeeze(1)
        if len(open_rows):
            again = search.scan(torch.float64, open_rows)
            found.index[open_rows] = again.index
            ties = again.undecided()
            if ties.any():
                limit = (again.best + 2 * again.error)[ties]
                found.index[open_rows[ties]] = search.settle(open_rows[ties], limit)
    return found.index


@dataclass(frozen=True)
class _Found:
    """Of each row the best entry, its score, the second-best score and the rounding error of a score."""

    index: Int[Tensor, " n"]
    best: Float[Tensor, " n"]
    second: Float[Tensor, " n"]
    error: Float[Tensor, " n"]

    def undecided(self) -> Bool[Tensor, " n"]:
        # In this form a comparison with NaN (an overflow) counts as undecided.
        return ~(self.second - self.best > 2 * self.error)

    def merged(self, later: "_Found") -> "_Found":
        """The two best of this part of the entries and a later one."""
        return _Found(
            torch.where(later.best < self.best, later.index, self.index),
            torch.minimum(self.best, later.best),
            torch.minimum(torch.maximum(self.best, later.best), torch.minimum(self.second, later.second)),
            torch.maximum(self.error, later.error),
        )


class _Search:
    """Rows and entries, moved to the entries' mean piece by piece.

    Distances do not change when everything is moved together, and a common offset then costs no digits. The mean only
    has to be the same number everywhere, so its own rounding is harmless.
    """

    def __init__(self, rows: Tensor, entries: Tensor) -> None:
        self.rows = rows
        self.entries = entries
        self.width = rows.shape[1]
        self.centre = entries.mean(0, dtype=torch.float32).nan_to_num(0.0, 0.0, 0.0)
        self.buffer = CPU_BUFFER if rows.device.type == "cpu" else GPU_BUFFER
        self.table_size = max(1, min(len(entries), 2**14, self.buffer // max(self.width, 1)))

    def scan(self, dtype: torch.dtype, picked: Tensor | None = None) -> _Found:
        """The two best entries of all rows, or of the `picked` ones, by scores computed in `dtype`."""
        parts = (self._scan_table(first, table, bias, picked) for first, table, bias in self._tables(dtype))
        return reduce(_Found.merged, parts)

    def _scan_table(self, first: int, table: Tensor, bias: Tensor, picked: Tensor | None) -> _Found:
        scores = table.new_empty(0)
        results = []
        for rows in self._pieces(table, picked):
            size = len(table) * len(rows)
            if not len(scores):  # the first piece is the largest
                scores = table.new_empty(size)
            out = scores[:size].view(len(table), len(rows))
            torch.addmm(bias[:, None], table, rows.T, alpha=-1, out=out)
            results.append((*_two_best(out), torch.linalg.vector_norm(rows, dim=1)))
        index, best, second, norms = (torch.cat(column) for column in zip(*results, strict=True))
        return _Found(index + first, best, second, self._error(norms, table))

    def settle(self, picked: Tensor, limit: Tensor) -> Tensor:
        """The nearest entry of the `picked` rows by float64 differences, among entries that score up to `limit`."""
        distance = limit.new_full((len(picked),), torch.inf)
        nearest = torch.zeros_like(picked)
        distinct = _first_of_each(self.entries)
        for first, table, bias in self._tables(torch.float64):
            usable = torch.zeros(len(bias), 1, dtype=torch.bool, device=bias.device)
            usable[:, 0][: len(self.entries) - first] = distinct[first : first + len(bias)]
            start = 0
            for rows in self._pieces(table, picked):
                scores = torch.addmm(bias[:, None], table, rows.T, alpha=-1)
                near = (scores <= limit[start : start + len(rows)]) & usable
                for pairs in near.nonzero().split(max(1, self.buffer // 2 // self.width)):
                    self._take(picked, start + pairs[:, 1], first + pairs[:, 0], distance, nearest)
                start += len(rows)
        return nearest

    def _take(self, picked: Tensor, place: Tensor, entry: Tensor, distance: Tensor, nearest: Tensor) -> None:
        """Enters pairs (place in `picked`, entry) into the least `distance` and the `nearest` entry found so far."""
        difference = self.rows[picked[place]].double() - self.entries[entry].double()
        pair = difference.square_().sum(1)
        before = distance.clone()
        distance.scatter_reduce_(0, place, pair, "amin")
        nearest.masked_fill_(distance < before, len(self.entries))
        equal = pair == distance[place]
        nearest.scatter_reduce_(0, place[equal], entry[equal], "amin")

    def _tables(self, dtype: torch.dtype) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The entries in parts: index of the first, the moved entries, half their squared norms.

        A part is filled up to whole groups with entries that are infinitely far.
        """
        for first in range(0, len(self.entries), self.table_size):
            part = _moved(self.entries[first : first + self.table_size], self.centre, dtype)
            group = _group_size(len(part))
            table = part.new_zeros(-(-len(part) // group) * group, self.width)
            table[: len(part)] = part
            bias = table.new_full((len(table),), torch.inf)
            bias[: len(part)] = part.square().sum(1, dtype=torch.float64) / 2
            yield first, table, bias

    def _pieces(self, table: Tensor, picked: Tensor | None) -> Iterator[Tensor]:
        """The moved rows in pieces whose scores against `table` fill one buffer."""
        step = max(1, self.buffer * 4 // table.itemsize // max(table.shape))
        for start in range(0, len(self.rows) if picked is None else len(picked), step):
            part = slice(start, start + step)
            yield _moved(self.rows[part] if picked is None else self.rows[picked[part]], self.centre, table.dtype)

    def _error(self, norms: Tensor, table: Tensor) -> Tensor:
        """A bound on the rounding of the scores of rows with these norms against the entries of `table`.

        With u the unit roundoff, a = r - c and b = e - c: moving costs u|a| and u|b|, a product summed over d terms in
        any order (d + 1)u(|a||b| + |b|²/2), the bias 2u|b|²/2; together below (d + 16)u·|b|(|a| + |b|/2), with room for
        the rounding of the norms themselves. Operands rounded to fewer digits add twice that rounding. Underflow adds
        a smallest number a term. In float64 the rounding of the brute force, (d + 2)u|a - b|², is covered too, so that
        its own near ties are all settled by its own formula.
        """
        reach = torch.linalg.vector_norm(table, dim=1).max()
        rounding = (self.width + 16) * torch.finfo(table.dtype).eps / 2
        underflow = (self.width + 16) * torch.finfo(table.dtype).tiny
        if table.dtype == torch.float64:
            return rounding * (norms + reach).square() + underflow
        return (rounding + 2 * _operand_rounding(norms.device)) * reach * (norms + reach / 2) + underflow


def _moved(values: Tensor, centre: Tensor, dtype: torch.dtype) -> Tensor:
    """Values minus the centre, rounded once to `dtype`."""
    return (values.to(torch.promote_types(values.dtype, dtype)) - centre).to(dtype)


def _group_size(k: int) -> int:
    return max(1, math.isqrt(k))


def _two_best(scores: Float[Tensor, "k n"]) -> tuple[Tensor, Tensor, Tensor]:
    """Index and value of each column's minimum, and the value of the next one.

    argmin is several times slower than amin; so only the √k minima of groups are searched, then the best group.
    """
    k, n = scores.shape
    size = _group_size(k)
    groups = scores.view(-1, size, n)
    minima = groups.amin(1)
    best, group = minima.min(0)
    inside = groups.gather(0, group.expand(1, size, n))[0]
    member = inside.min(0).indices
    minima.scatter_(0, group[None], torch.inf)
    inside.scatter_(0, member[None], torch.inf)
    return group * size + member, best, torch.minimum(minima.amin(0), inside.amin(0))


def _first_of_each(entries: Float[Tensor, "k d"]) -> Bool[Tensor, " k"]:
    """True where an entry repeats none before it: of equal entries only the first can be the answer."""
    inverse = torch.unique(entries, dim=0, return_inverse=True)[1]
    places = torch.arange(len(entries), device=entries.device)
    first = torch.full_like(places, len(entries)).scatter_reduce_(0, inverse, places, "amin")
    return first[inverse] == places


def _operand_rounding(device: torch.device) -> float:
    """How coarsely a float32 product on `device` may round its operands, as the user has set PyTorch."""
    backend: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    # Releases before 2.9 know the one setting for all devices only.
    setting = getattr(backend.matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()
    return OPERAND_ROUNDING.get(setting, 0.0)
