"""What every streaming metric is: a vector of sums."""

from torch import Tensor

from tavq.ops.collective import all_reduce_sum


class SumMetric:
    """A metric whose whole memory is `state`, one vector of sums over what it has seen.

    Two processes that saw one half of the images each hold together what one process would: `state` may be summed
    by an all-reduce in place, or two metrics joined by `merge`. Nothing is ever a mean of means.
    """

    state: Tensor

    def merge(self, other: "SumMetric") -> None:
        """Counts what `other` has seen as seen here."""
        assert self.state.shape == other.state.shape, "metrics of different sizes"
        self.state += other.state

    def join(self) -> None:
        """Counts what all processes have seen as seen here; alone, nothing happens.

        Whole numbers add up exactly; float64 sums to rounding, as the order of the additions is another one.
        """
        self.state = all_reduce_sum(self.state)
