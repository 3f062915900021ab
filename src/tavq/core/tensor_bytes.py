"""The bytes of a safetensors file, tensor by tensor, so that writing weights takes no memory beside theirs.

The library's `save` holds the file twice before the first byte is written. Source: the format's description in
huggingface/safetensors (8 bytes of length, JSON, data). The bytes are those of `save`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.uint32: "U32",
    torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16", torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
"""Names of types, in the order in which the library writes tensors: what needs the most alignment first."""

_RANKS = {dtype: rank for rank, dtype in enumerate(DTYPES)}


def file_chunks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Yield the parts of a safetensors file: its header, then the memory of each tensor.

    Args:
        tensors: of the types in `DTYPES`; copied one at a time where they are not contiguous or not on the CPU.
        metadata: text to keep in the header.
    """
    ordered = sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name.encode()))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in ordered:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in ordered:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if flat.stride(0) != 1:  # a single number of an expanded tensor counts as contiguous with any stride
            flat = flat.clone(memory_format=torch.contiguous_format)
        yield flat.view(torch.uint8).numpy().data


def serialize_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a safetensors file, for files that are small or changed before they are written."""
    return b"".join(file_chunks(tensors, metadata))
