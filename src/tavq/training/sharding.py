"""Fully sharded training: each process holds a part of the weights, the gradients and the optimizer state of a task.

Source: Zhao et al., PyTorch FSDP (arXiv 2304.11277), section 3.2, full sharding; the work is PyTorch's `fully_shard`.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from tavq.core.errors import UsageError
from tavq.core.tensor_names import update_tensor_names
from tavq.ops.collective import all_reduce_sum, rank, world_size
from tavq.ops.parts import is_part

MIN_TORCH = (2, 9)
"""The first release whose `torch.distributed.checkpoint` writes parts of tensors as safetensors."""

METHODS = ("loss", "attention_weights")
"""Methods other than `forward` that compute with the weights in training."""


def shard(model: nn.Module, precision: str) -> None:
    """Shard a model in place over all processes; each parameter becomes the rows of this process.

    The matrices of each transformer block are one group: gathered before its forward pass, freed, and gathered again
    for its backward pass. All other weights (embeddings, norms, heads) are gathered once a step. Gradients are averaged
    over the processes in fp32.

    With bf16 the matrices of blocks are gathered in bf16, half the bytes: autocast multiplies them in bf16 anyway.
    Norms stay in fp32, as in an unsharded model, so the arithmetic is the same.

    Only `model.loss` may be called afterwards; for everything else `gather_state` gives the whole weights.

    Args:
        model: with the same weights in every process, on its device.
        precision: train.precision, fp32 or bf16.

    Raises:
        UsageError: torch is too old, or the model has no transformer blocks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    _check_torch()
    blocks = [matrix_parts(block) for block in find_blocks(model)]
    if not blocks:
        raise UsageError("train.sharding full shards transformer blocks, and this task has none; set it to none.")
    # Blocks add to what their parts return and never change it in place, which is what torch warns of.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    mesh = init_device_mesh(next(model.parameters()).device.type, (world_size(),))
    dtype = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    for parts in blocks:
        fully_shard(parts, mesh=mesh, mp_policy=policy)
        _register_methods(parts)
    scalars = {parameter for parameter in model.parameters() if not parameter.ndim}  # cannot be divided
    fully_shard(model, mesh=mesh, ignored_params=scalars)
    _register_methods([model])
    for scalar in scalars:
        scalar.register_post_accumulate_grad_hook(_average_gradient)


def _check_torch() -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < MIN_TORCH:
        needed = ".".join(map(str, MIN_TORCH))
        raise UsageError(f"train.sharding full needs torch {needed} or newer, and this is {torch.__version__}.")


def find_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The transformer blocks of a model: entries of lists of modules, with matrices."""
    for modules in model.modules():
        if isinstance(modules, nn.ModuleList):
            yield from (block for block in modules if matrix_parts(block))


def matrix_parts(block: nn.Module) -> list[nn.Module]:
    """The parts of a block that have matrices."""
    return [part for part in block.children() if any(weight.ndim > 1 for weight in part.parameters())]


def _register_methods(modules: Iterable[nn.Module]) -> None:
    """Let methods gather the weights of their module as its `forward` does."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    for module in modules:
        for method in METHODS:
            if hasattr(module, method):
                register_fsdp_forward_method(module, method)


def _average_gradient(parameter: Tensor) -> None:
    assert parameter.grad is not None, "called after the gradient was added"
    parameter.grad = all_reduce_sum(parameter.grad) / world_size()


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was applied to a model."""
    return any(map(is_part, model.parameters()))


def own_part(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, which shares its memory; another tensor as it is."""
    return tensor.to_local() if is_part(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, which all processes must ask for; another tensor as it is."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def split_by_kind(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The sharded tensors, and the others; torch's functions of many tensors cannot mix the two."""
    found = list(tensors)
    kinds = ([tensor for tensor in found if is_part(tensor) == sharded] for sharded in (True, False))
    return [kind for kind in kinds if kind]


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The 2-norm of all tensors together, over all parts of sharded ones."""
    norms = [whole(torch.nn.utils.get_total_norm(kind)) for kind in split_by_kind(tensors)]
    return norms[0] if len(norms) == 1 else torch.nn.utils.get_total_norm(norms)


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale all gradients down together so that their norm is at most `limit`."""
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = total_norm([parameter.grad for parameter in held if parameter.grad is not None])
    for kind in split_by_kind(held):
        torch.nn.utils.clip_grads_with_norm_(kind, limit, norm)


def find_sharded(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> Callable[[str, str], Tensor | None]:
    """A function that finds the sharded tensor of a run to which a tensor of a checkpoint belongs, if it has one.

    Args:
        modules: by their group in checkpoints.
        optimizers: by the group of their module; their states have the group `GROUP.optimizer`.
    """
    states = {group: module.state_dict() for group, module in modules.items()}

    def find(group: str, name: str) -> Tensor | None:
        found: Tensor | None = None
        if group.endswith(".optimizer"):
            parameters = optimizer_parameters(optimizers[group.removesuffix(".optimizer")])
            index = int(name.partition("/")[0])
            found = parameters[index] if index < len(parameters) else None
        elif group in modules:
            [current] = update_tensor_names(modules[group], {name: torch.empty(0)})
            found = states[group].get(current)
        return found if is_part(found) else None

    return find


def optimizer_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters of an optimizer, in the order in which its state counts them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def gather_state(model: nn.Module) -> dict[str, Tensor]:
    """The whole state dict on the CPU, in the first process; the others must call it too and get no tensors.

    One tensor at a time is gathered, so that no process but the first holds more than one.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        gathered = whole(tensor.detach())
        if rank() == 0:
            state[name] = gathered.cpu()
    return state
