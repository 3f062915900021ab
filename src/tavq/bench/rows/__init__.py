"""The rows of the table by name, in its order."""

from tavq.bench.case import Row
from tavq.bench.rows import encode, jpeg, nearest, quantizer, sampling, sinkhorn, step, text

ROWS: dict[str, Row] = {
    "nearest": nearest.cases,
    "quantizer": quantizer.cases,
    "step": step.cases,
    "encode": encode.cases,
    "sampling": sampling.cases,
    "sinkhorn": sinkhorn.cases,
    "text": text.cases,
    "jpeg": jpeg.cases,
}
