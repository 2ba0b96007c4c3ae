"""Devices that a machine does not have: tensors on the CPU that say they lie elsewhere, and do not mix with others.

Every operation is really computed, on the CPU. One on tensors of two devices fails, as it does on real ones; numbers
(tensors without a dimension on the CPU) go with all. Not to be had this way: fused kernels, and gradients, which
autograd carries back to where C++ believes the tensors to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from transformers import PreTrainedModel

CPU = torch.device("cpu")


class Elsewhere(Tensor):
    """A tensor on the CPU that says that it lies on `device`."""

    held: Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device) -> Elsewhere:
        # PyTorch has no guards for devices that are not there, but for `meta`.
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **form, device="meta")
        made.held, made.place = held, place
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held}, {self.device})"


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, where its tensors lie or where it is told to make one."""
    leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    devices = {leaf.device for leaf in leaves if leaf.dim() or leaf.device != CPU}
    asked = kwargs.get("device")
    if asked is not None and torch.device(asked).type == "meta":
        # The tensor's own, as C++ sees it.
        asked = leaves[0].device if leaves else CPU
    copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if len(devices) > 1 and not copies:
        raise RuntimeError(f"{func} on tensors of {', '.join(sorted(map(str, devices)))}")
    device = torch.device(asked) if asked is not None else leaves[0].device if copies else next(iter(devices), CPU)

    def real(leaf: Any) -> Any:
        return leaf.held if isinstance(leaf, Elsewhere) else leaf

    if asked is not None:
        kwargs = {**kwargs, "device": CPU}
    out = func(*tree_map(real, args), **tree_map(real, kwargs))
    if func._schema.is_mutable and leaves and out is real(leaves[0]):
        return leaves[0]
    return tree_map(lambda x: Elsewhere(x, device) if isinstance(x, Tensor) and device != CPU else x, out)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Data(TorchFunctionMode):
    """`torch.tensor` fills its memory, and `x.to(y)` asks y where it is, where no dispatch mode sees it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to and isinstance(args[1] if len(args) > 1 else None, Tensor):
            args = (args[0], args[1].device, args[1].dtype, *args[2:])
        if func is Tensor.tolist and isinstance(args[0], Elsewhere):
            args = (args[0].cpu(),)
        device = kwargs.pop("device", None) if func is torch.tensor else None
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


@contextmanager
def devices() -> Iterator[None]:
    """Let there be such devices while the context lasts."""
    with mock.patch("torch.cuda._lazy_init"), _Operations(), _Data():
        yield


def lay_out(model: PreTrainedModel, places: Mapping[str, str]) -> None:
    """Put a model's modules on devices, with accelerate's hooks, as `parallelize=True` does on real ones."""
    for name, place in places.items():
        device, module = torch.device(place), model.get_submodule(name)
        for inner in module.modules():
            for tensors in (inner._parameters, inner._buffers):
                for key, tensor in tensors.items():
                    if tensor is not None and not isinstance(tensor, Elsewhere):
                        tensors[key] = Elsewhere(tensor.detach(), device)
        add_hook_to_module(module, AlignDevicesHook(execution_device=device, skip_keys="past_key_values"))
    add_hook_to_module(model, AlignDevicesHook(io_same_device=True, skip_keys="past_key_values"))
    model.hf_device_map = dict(places)
