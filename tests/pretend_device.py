"""A GPU that is not there: tensors of the CPU whose storages are said to lie on one.

Values are real, so control flow that looks at them runs as it is. Inside of `pretend` a storage carries a label, "cuda"
or "cpu"; `.device`, `.to`, `.numpy` and factories answer by it, and every ATen call, forward and backward, goes through
`pretend_operators.count_operators`, which notes what a GPU would refuse or be slowed down by. FakeTensorMode cannot do
it on a CPU build: autograd asks CUDA for its device.
"""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.utils.clip_grad
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)

_labels: dict[int, tuple[StorageWeakRef, str]] = {}


def _storage(tensor: Tensor) -> Any:
    return (tensor if tensor.layout == torch.strided else tensor._values()).untyped_storage()


def label(tensor: Tensor) -> str | None:
    """Where a tensor is said to lie: "cuda", "cpu" or "meta"; None where an operator has just made it."""
    with torch._C.DisableTorchFunction():
        if tensor.is_meta:
            return "meta"
        found = _labels.get(_storage(tensor)._cdata)
        return None if found is None or found[0].expired() else found[1]


def put(tensor: Any, name: str) -> Any:
    """The same tensor, now said to lie on `name`."""
    if isinstance(tensor, Tensor):
        with torch._C.DisableTorchFunction():
            if not tensor.is_meta:
                storage = _storage(tensor)
                _labels[storage._cdata] = (StorageWeakRef(storage), name)
    return tensor


class Stream:
    """A queue of the GPU: what it copies may be used by another only once that has waited for it."""

    current: "Stream"

    def __init__(self, device: Any = None) -> None:
        self.copies = 0
        self.waited: dict[Stream, int] = {}
        """How many copies of each other stream were begun when this one waited for it."""

    def wait_stream(self, other: "Stream") -> None:
        self.waited[other] = other.copies


USUAL = Stream.current = Stream()


@contextlib.contextmanager
def _stream(stream: Stream) -> Iterator[None]:
    before, Stream.current = Stream.current, stream
    try:
        yield
    finally:
        Stream.current = before


@dataclass
class Copy:
    """A tensor that a stream other than the usual one copied to the GPU."""

    storage: StorageWeakRef
    stream: Stream
    number: int
    users: list[Stream]
    """Streams whose work on it the allocator was told of."""

    def fault(self, user: Stream) -> str | None:
        """What is wrong where a stream uses it now."""
        if user is self.stream or self.storage.expired():
            return None
        if user.waited.get(self.stream, 0) < self.number:
            return "used by a stream that has not waited for its copy"
        return None if user in self.users else "its memory may be given away while it is used"


_copies: dict[int, Copy] = {}


def _note_copy(tensor: Tensor) -> Tensor:
    """Remember a tensor that was copied to the GPU, unless by the usual stream."""
    stream = Stream.current
    stream.copies += 1
    with torch._C.DisableTorchFunction():
        storage = _storage(tensor)
        _copies.pop(storage._cdata, None)
        if stream is not USUAL:
            _copies[storage._cdata] = Copy(StorageWeakRef(storage), stream, stream.copies, [])
    return tensor


def find_copy(tensor: Tensor) -> Copy | None:
    """How a tensor came to the GPU; None if the usual stream brought it or made it."""
    with torch._C.DisableTorchFunction():
        return None if tensor.is_meta else _copies.get(_storage(tensor)._cdata)


def _current_stream(device: Any = None) -> Stream:
    return Stream.current


def _record_stream(tensor: Tensor, user: Stream) -> None:
    copy = find_copy(tensor)
    if copy is not None:
        copy.users.append(user)


@dataclass
class Notes:
    """What a GPU would have been asked to do, each with the line of tavq that asked."""

    mixes: Counter[str] = field(default_factory=Counter)
    """Calls that CUDA refuses, as their tensors lie on two devices."""
    waits: Counter[str] = field(default_factory=Counter)
    """Calls for whose answer the CPU waits."""
    slow_lists: Counter[str] = field(default_factory=Counter)
    """Lists of tensors with different strides, for which foreach operators launch one kernel a tensor."""
    launches: Counter[str] = field(default_factory=Counter)
    """Kernels, by operator: none for views, one for most, and a few for some."""
    places: Counter[str] = field(default_factory=Counter)
    """The same kernels, by the line that launched them."""

    def counts(self) -> tuple[int, int]:
        """Waits and launches so far."""
        return self.waits.total(), self.launches.total()


def place() -> str:
    """The innermost line of tavq on the stack, or else of whatever is not torch."""
    frame, other = sys._getframe(1), None
    while frame is not None:
        name = frame.f_code.co_filename
        if "/src/tavq/" in name:
            return f"{name.split('/src/tavq/')[-1]}:{frame.f_lineno}"
        if other is None and "/torch/" not in name and "/pretend_" not in name:
            other = f"{'/'.join(name.split('/')[-2:])}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return other or "?"


FACTORIES = {
    torch.zeros, torch.ones, torch.full, torch.empty, torch.empty_strided, torch.arange, torch.range, torch.linspace,
    torch.logspace, torch.rand, torch.randn, torch.randint, torch.randperm, torch.eye, torch.tensor, torch.as_tensor,
    torch.scalar_tensor, torch.from_numpy, torch.frombuffer, torch.tril_indices, torch.triu_indices, torch.asarray,
}  # fmt: skip
DEVICE, IS_CUDA, IS_CPU = Tensor.device.__get__, Tensor.is_cuda.__get__, Tensor.is_cpu.__get__  # type: ignore[attr-defined]


def _kind(device: Any) -> str | None:
    return None if device is None else torch.device(device).type


class Functions(TorchFunctionMode):
    """Answers by the labels where Python asks for devices, and copies between them."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "__get__" and func in (DEVICE, IS_CUDA, IS_CPU):
            if label(args[0]) != "cuda":
                return func(*args)
            return CUDA if func == DEVICE else func == IS_CUDA
        if args and isinstance(args[0], Tensor):
            answer = self._of_tensor(name, args, kwargs)
            if answer is not None:
                return answer
        wanted = _kind(kwargs.get("device"))
        if wanted == "cuda":
            kwargs["device"] = "cpu"
        self._check_generator(name, args, kwargs, wanted)
        found = func(*args, **kwargs)
        self._label_new(func, name, args, kwargs, wanted, found)
        return found

    def _of_tensor(self, name: str, args: Any, kwargs: Any) -> Any:
        """The answer of a method that moves a tensor or reads it; None for all others."""
        on_gpu = label(args[0]) == "cuda"
        if name in ("to", "cpu", "cuda"):
            return self._moved(name, args[0], args[1:], kwargs)
        if name == "as_tensor":
            return self._moved("to", args[0], (), {k: v for k, v in kwargs.items() if k in ("device", "dtype")})
        if name == "pin_memory":
            return put(args[0].clone(), "cpu")
        if name in ("numpy", "__array__") and on_gpu:
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy ({place()})")
        if name == "tolist" and on_gpu:
            self.notes.waits[f"{place()}: tolist"] += 1
        return None

    def _label_new(self, func: Any, name: str, args: Any, kwargs: Any, wanted: str | None, found: Any) -> None:
        if func in FACTORIES and wanted != "meta":
            put(found, wanted or "cpu")
            if wanted == "cuda" and name in ("tensor", "as_tensor", "asarray"):
                self.notes.waits[f"{place()}: torch.{name} on the GPU copies and waits"] += 1
        elif name == "new_tensor" or (wanted in ("cuda", "cpu") and isinstance(found, Tensor)):
            put(found, wanted or label(args[0]) or "cpu")
            if name == "new_tensor" and label(args[0]) == "cuda":
                self.notes.waits[f"{place()}: new_tensor copies and waits"] += 1

    def _check_generator(self, name: str, args: Any, kwargs: Any, wanted: str | None) -> None:
        generator = kwargs.get("generator")
        if generator is None:
            return
        own = wanted or (label(args[0]) if args and isinstance(args[0], Tensor) else None) or "cpu"
        theirs = getattr(generator, "pretended", torch.device("cpu")).type
        if own != theirs:
            self.notes.mixes[f"{place()}: {name}: a {theirs} generator for a {own} tensor"] += 1

    def _moved(self, name: str, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        kwargs = dict(kwargs)
        options: dict[str, Any] = {"copy": kwargs.pop("copy", False)}
        blocking, wanted = True, name if name != "to" else None
        if name == "to" and args and isinstance(args[0], Tensor):
            wanted, options["dtype"] = label(args[0]) or "cpu", args[0].dtype
        elif name == "to":
            device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
            wanted, blocking = _kind(device), not non_blocking
            options |= {} if dtype is None else {"dtype": dtype}
            options |= {} if memory_format is None else {"memory_format": memory_format}
        own = label(tensor)
        if "meta" in (wanted, own):
            return tensor.to(**options, device=wanted or "meta")
        if wanted in (None, own) or (own is None and wanted == "cpu"):
            return tensor.to(**options)
        options["copy"] = True
        if wanted == "cpu" or blocking:
            self.notes.waits[f"{place()}: copy to the {'CPU' if wanted == 'cpu' else 'GPU'}"] += 1
        made = put(tensor.to(**options), str(wanted))
        return _note_copy(made) if wanted == "cuda" else made


class Operators(TorchDispatchMode):
    """Lets `check` see every ATen call that a tensor of the GPU takes part in, and labels what comes out."""

    def __init__(self, notes: Notes, check: Callable[..., None]) -> None:
        super().__init__()
        self.notes, self.check = notes, check

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        labels = [label(tensor) for tensor in tensors]
        if "cuda" in labels:
            for copy in filter(None, map(find_copy, tensors)):
                fault = copy.fault(Stream.current)
                if fault is not None:
                    self.notes.mixes[f"{place()}: {fault}"] += 1
            self.check(self.notes, func, args, kwargs, tensors, labels)
        found = func(*args, **kwargs)
        where = "cuda" if "cuda" in labels else "cpu" if "cpu" in labels else None
        if where is not None:  # what operators make inside of others lies where those around it say
            for leaf in tree_leaves(found):
                if isinstance(leaf, Tensor) and label(leaf) is None:
                    put(leaf, where)
        return found


class _Generator(torch.Generator):
    """A generator of the CPU that is said to be the GPU's."""

    pretended: torch.device

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        made = super().__new__(cls, "cpu")
        made.pretended = torch.device(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self.pretended


def _as_cpu(kind: str) -> str:
    return "cpu" if kind == "cuda" else kind


_autocast = torch.autocast


class _Autocast(_autocast):  # type: ignore[misc,valid-type]
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(_as_cpu(device_type), *args, **kwargs)


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes tensors of the CPU and that no TorchFunctionMode sees."""
    return lambda *args, **kwargs: put(function(*args, **kwargs), "cpu")


def _grouping(group: Callable[..., Any]) -> Callable[..., Any]:
    """torch's grouping of tensors by device, with the labels for devices."""

    def grouped(lists: Any, *more: Any) -> Any:
        found = {}
        for (device, dtype), value in group(lists, *more).items():
            found[CUDA if label(value[0][0][0]) == "cuda" else device, dtype] = value
        return found

    return grouped


def _reading(read: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    return lambda path: {name: put(tensor, "cpu") for name, tensor in read(path).items()}


@contextlib.contextmanager
def pretend(check: Callable[..., None]) -> Iterator[Notes]:
    """All that is done inside believes in one GPU; gives what was noted.

    Args:
        check: told of every ATen call; `pretend_operators.count_operators`.
    """
    from tavq.core import files

    clip, cuda, notes = torch.nn.utils.clip_grad, torch.cuda, Notes()
    enabled, dtype_of = torch.is_autocast_enabled, torch.get_autocast_dtype
    grouped = _grouping(clip._group_tensors_by_device_and_dtype)
    patches = [
        mock.patch.dict(os.environ, {"TAVQ_KERNELS": "torch"}),  # Triton would look for the GPU
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(torch, "autocast", _Autocast),
        mock.patch.object(torch, "is_autocast_enabled", lambda *kind: enabled(*map(_as_cpu, kind))),
        mock.patch.object(torch, "get_autocast_dtype", lambda kind: dtype_of(_as_cpu(kind))),
        mock.patch.object(cuda, "is_available", return_value=True),
        mock.patch.object(cuda, "device_count", return_value=1),
        mock.patch.object(cuda, "current_device", return_value=0),
        mock.patch.object(cuda, "get_device_name", return_value="a pretended GPU"),
        mock.patch.object(cuda, "manual_seed_all", return_value=None),
        mock.patch.object(cuda, "is_bf16_supported", return_value=True),
        mock.patch.object(cuda, "is_current_stream_capturing", return_value=False),
        mock.patch.object(cuda, "_lazy_init", return_value=None),
        mock.patch.object(cuda, "Stream", Stream),
        mock.patch.object(cuda, "stream", _stream),
        mock.patch.object(Tensor, "record_stream", _record_stream),
        mock.patch.object(cuda, "current_stream", _current_stream),
        mock.patch.object(clip, "_group_tensors_by_device_and_dtype", grouped),
        mock.patch.object(files, "read_tensors", _reading(files.read_tensors)),
        mock.patch.object(torch, "from_numpy", _on_cpu(torch.from_numpy)),
        mock.patch.object(torch, "frombuffer", _on_cpu(torch.frombuffer)),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(Operators(notes, check))
        stack.enter_context(Functions(notes))
        yield notes
    for key in [key for key, (storage, _) in _labels.items() if storage.expired()]:
        del _labels[key]
    _copies.clear()
