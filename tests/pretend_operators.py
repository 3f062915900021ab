"""What one ATen call would cost a GPU, or why the GPU would refuse it; see `pretend_device`."""

from typing import Any

import torch
from pretend_device import Notes, label, place
from torch import Tensor

FREE = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unbind", "split", "detach",
    "split_with_sizes", "alias", "squeeze", "unsqueeze", "as_strided", "diagonal", "unfold", "_reshape_alias", "lift",
    "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "sym_size", "sym_stride",
    "is_same_size", "view_as_real", "view_as_complex", "chunk", "set_", "resize_", "values", "indices", "_values",
    "_indices",
}  # fmt: skip
SEVERAL = {
    "convolution": 2, "convolution_backward": 4, "native_group_norm": 3, "native_group_norm_backward": 5,
    "native_layer_norm_backward": 3, "native_batch_norm": 3, "native_batch_norm_backward": 3, "sort": 4, "argsort": 4,
    "topk": 3, "nonzero": 3, "index_put": 2, "index_put_": 2, "_index_put_impl_": 2, "bincount": 4, "multinomial": 6,
    "embedding_dense_backward": 3, "unique_dim": 10, "_unique2": 6, "cumsum": 2, "randperm": 4,
    "_scaled_dot_product_flash_attention_for_cpu_backward": 3,
}  # fmt: skip
LIST_SIZES = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Tensors that one kernel of a foreach operator takes, by its number of lists (MultiTensorApply.cuh of PyTorch)."""

WAITING = {"nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "equal"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
BETWEEN_DEVICES = {"_local_scalar_dense", "copy_", "_to_copy", "set_", "equal"}
NUMBERS_OF_CPU = ("_foreach", "_fused", "masked_fill", "where", "fill")
"""Beginnings of operators that take a number from a 0-dimensional tensor of the CPU, as pointwise ones do."""


def count_operators(notes: Notes, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], labels: list[Any]) -> None:
    """Note the launches, waits and faults of one call in which a tensor of the GPU takes part."""
    name = func._schema.name.split("::")[1]
    if name in INDEXING:
        _check_indexing(notes, name, args)
    elif name == "copy_" and labels[:2] in (["cpu", "cuda"], ["cuda", "cpu"]):
        if not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking"):
            notes.waits[f"{place()}: copy to the {'CPU' if labels[0] == 'cpu' else 'GPU'}"] += 1
    elif name not in BETWEEN_DEVICES:
        _check_devices(notes, func, name, tensors, labels)
    if name in FREE:
        return
    launches = _count_lists(notes, name, args, kwargs) if name.startswith(("_foreach", "_fused")) else None
    count = SEVERAL.get(name, 1) if launches is None else launches
    notes.launches[name] += count
    notes.places[place()] += count
    _check_waits(notes, name, args, kwargs, tensors)


def _check_devices(notes: Notes, func: Any, name: str, tensors: list[Tensor], labels: list[Any]) -> None:
    takes_numbers = torch.Tag.pointwise in func.tags or name.startswith(NUMBERS_OF_CPU)
    wrong = [
        tensor
        for tensor, where in zip(tensors, labels, strict=True)
        if where == "cpu" and not (takes_numbers and tensor.dim() == 0)
    ]
    if wrong:
        shapes = ", ".join(f"{list(tensor.shape)} {where}" for tensor, where in zip(tensors, labels, strict=True))
        notes.mixes[f"{place()}: {func} of {shapes[:160]}"] += 1


def _check_indexing(notes: Notes, name: str, args: Any) -> None:
    own = label(args[0])
    places = [index for index in args[1] if isinstance(index, Tensor)]
    if own != "cuda" and any(label(index) == "cuda" for index in places):
        notes.mixes[f"{place()}: a CPU tensor indexed by indices on the GPU"] += 1
    if own == "cuda" and any(label(index) == "cpu" for index in places):
        notes.waits[f"{place()}: indices on the CPU are copied"] += 1
    if len(args) > 2 and args[2].dim() and label(args[2]) not in (None, own):
        notes.mixes[f"{place()}: values of {label(args[2])} put into a tensor of {own}"] += 1
    masks = [index for index in places if index.dtype in (torch.bool, torch.uint8)]
    if masks and own == "cuda" and (name == "index" or args[2].numel() != 1):
        notes.waits[f"{place()}: a boolean mask"] += len(masks)


def _count_lists(notes: Notes, name: str, args: Any, kwargs: Any) -> int | None:
    """The kernels of an operator on lists of tensors, and a note where their strides differ."""
    lists = [value for value in (*args, *kwargs.values()) if isinstance(value, list | tuple) and value]
    lists = [value for value in lists if isinstance(value[0], Tensor) and value[0].dim() + value[0].numel() > 1]
    if not lists:
        return None
    count = len(lists[0])
    others = [other for other in lists[1:] if len(other) == count]
    if any(_differ(one, two) for other in others for one, two in zip(lists[0], other, strict=True)):
        notes.slow_lists[f"{place()}: {name} of {count} tensors"] += 1
        return count
    return -(-count // LIST_SIZES[min(1 + len(others), 5)])


def _differ(one: Tensor, other: Tensor) -> bool:
    with torch._C.DisableTorchFunction():
        strides = zip(one.shape, one.stride(), other.stride(), strict=False)
        return one.shape == other.shape and any(size != 1 and a != b for size, a, b in strides)


def _check_waits(notes: Notes, name: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
    if name == "_local_scalar_dense" and label(tensors[0]) == "cuda":
        notes.waits[f"{place()}: a value is read"] += 1
    elif name in WAITING:
        notes.waits[f"{place()}: {name}"] += 1
    elif name == "multinomial" and (args[1] == 1 or not (args[2:] and args[2])):  # CUDA checks its input here alone
        notes.waits[f"{place()}: multinomial looks at the probabilities"] += 1
    elif name == "bincount":
        notes.waits[f"{place()}: bincount reads its least and largest index"] += 2
    elif name == "repeat_interleave" and kwargs.get("output_size") is None and len(args) < 3:
        notes.waits[f"{place()}: repeat_interleave without output_size"] += 1
