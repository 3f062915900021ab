"""What the processes that evaluate together have between them."""

from collections.abc import Iterable, Sequence

from tavq.metrics.record import Baseline
from tavq.ops.gathering import gather_values


def find_union(own: Iterable[Baseline | None], known: Sequence[Baseline | None]) -> list[Baseline | None]:
    """The baselines that any process has measured, in the order of `known`; None is the model itself."""
    names = {name for names in gather_values([_name(baseline) for baseline in own]) for name in names}
    return [baseline for baseline in known if _name(baseline) in names]


def _name(baseline: Baseline | None) -> str:
    return "" if baseline is None else baseline.name
