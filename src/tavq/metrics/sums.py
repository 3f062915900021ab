"""The base of streaming metrics: a vector of sums."""

from torch import Tensor

from tavq.ops.collective import all_reduce_sum


class SumMetric:
    """A metric whose only state is `state`, one vector of sums over the items.

    Two processes that saw one half of the images each have together the sums of one process that saw all: `state` may
    be all-reduced in place, or two metrics joined by `merge`. Means are computed from sums, never from means.
    """

    state: Tensor

    def merge(self, other: "SumMetric") -> None:
        """Adds the sums of another metric of the same kind."""
        assert self.state.shape == other.state.shape, "metrics of different sizes"
        self.state += other.state

    def join(self) -> None:
        """Adds up the sums of all processes; without other processes nothing changes.

        Sums of integers are exact; sums of float64 differ by rounding, as the order of the additions differs.
        """
        self.state = all_reduce_sum(self.state)
