"""Whether torch.export is tracing: searches whose control flow depends on values then take a plain form."""

import torch


def is_exporting() -> bool:
    """True while torch.export traces; False in versions of torch that cannot say so, with which nothing is exported."""
    return getattr(torch.compiler, "is_exporting", bool)()
