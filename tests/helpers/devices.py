"""Devices that a machine does not have: tensors that say they lie there, do not mix with others, and are counted.

Every operation is really computed, on the CPU; with `only_shapes` none is, and a tensor is its shape, its dtype and its
bytes, so that whole models of any size pass. One on tensors of two devices fails, as it does on real ones; numbers
(tensors without a dimension on the CPU) go with all. Not to be had this way: the CPU's fused kernels, gradients, which
autograd carries back to where C++ believes the tensors to be, and what kernels need inside themselves.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
META = torch.device("meta")
aten = torch.ops.aten
# Their results' shapes depend on numbers that only the device knows.
_DATA_DEPENDENT = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
    aten.equal.default,
}
_COPIES = (aten._to_copy.default, aten.copy_.default)


@dataclass
class Watch:
    """What happens on the devices.

    Attributes:
        held: Where the tensors' numbers are; on `meta` there are none.
        waits: By operation, how often the host waited for a number of a device.
        started: By operation, how often one was started there that does more than make memory or look at it.
        live: Bytes of all tensors there.
        peak: The most that there ever were.
    """

    held: torch.device
    waits: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    live: int = 0
    peak: int = 0
    _known: set[int] = field(default_factory=set)

    def add(self, held: Tensor) -> None:
        """Count a tensor's memory until it is given back; views share theirs."""
        storage = held.untyped_storage()
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._give_back, storage._cdata, storage.nbytes())

    def _give_back(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.live -= size


_watch = Watch(CPU)


class Elsewhere(Tensor):
    """A tensor that says that it lies on `device`."""

    held: Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device) -> Elsewhere:
        # PyTorch has no guards for devices that are not there, but for `meta`.
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **form, device="meta")
        made.held, made.place = held, place
        _watch.add(held)
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
    copies = func in _COPIES
    if len(devices) > 1 and not copies:
        raise RuntimeError(f"{func} on tensors of {', '.join(sorted(map(str, devices)))}")
    device = torch.device(asked) if asked is not None else leaves[0].device if copies else next(iter(devices), CPU)
    _note_wait(func, args, leaves, devices, device)
    if device.type != "cpu" and not _starts_nothing(func):
        _watch.started[str(func)] += 1

    def real(leaf: Any) -> Any:
        return leaf.held if isinstance(leaf, Elsewhere) else leaf

    if asked is not None:
        kwargs = {**kwargs, "device": _watch.held if device != CPU else CPU}
    held = tree_map(real, args), tree_map(real, kwargs)
    out = _invented(func, held[0], device) if _watch.held == META else None
    out = func(*held[0], **held[1]) if out is None else out
    if func._schema.is_mutable and leaves and out is real(leaves[0]):
        return leaves[0]
    return tree_map(lambda x: Elsewhere(x, device) if isinstance(x, Tensor) and device not in {CPU, META} else x, out)


def _note_wait(func: Any, args: Any, leaves: list[Tensor], devices: set[torch.device], device: torch.device) -> None:
    """Count an operation for which the host waits until a device has done all that it was given."""
    if not any(place.type != "cpu" for place in devices):
        return
    leaving = device == CPU and (func is aten._to_copy.default or func is aten.copy_.default)
    picked = func in (aten.index.Tensor, aten.index_put_.default) and any(
        index is not None and index.dtype == torch.bool for index in args[1]
    )
    if func is aten._local_scalar_dense.default or leaving or picked or func in _DATA_DEPENDENT:
        _watch.waits[str(func)] += 1


def _starts_nothing(func: Any) -> bool:
    looks = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.arguments)
    return looks or func.overloadpacket in {aten.empty, aten.empty_like, aten.new_empty, aten._unsafe_view}


def _invented(func: Any, args: Any, device: torch.device) -> Any:
    """Numbers where none are: every one that the host asks for is 1."""
    first = args[0] if args else None
    if not (isinstance(first, Tensor) and first.device == META):
        return None
    if func is aten._local_scalar_dense.default:
        return first.dtype == torch.bool or (1.0 if first.dtype.is_floating_point else 1)
    if func is aten._to_copy.default and device == CPU:
        return torch.ones(first.shape, dtype=first.dtype)
    if func is aten.unique_dim.default:
        return first, torch.zeros(first.shape[args[1]], dtype=torch.long, device=META), first
    return None


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def _fused(  # noqa: PLR0917 (its signature is PyTorch's)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's attention as it chooses on a GPU in half precision, where C++ would see `meta` and choose another."""
    if attn_mask is None:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    bias = torch.zeros_like(attn_mask, dtype=query.dtype).expand(*query.shape[:3], key.shape[2])
    return aten._scaled_dot_product_efficient_attention(query, key, value, bias, False, dropout_p, scale=scale)[0]


class _Data(TorchFunctionMode):
    """`torch.tensor` fills its memory, and `x.to(y)` asks y where it is, where no dispatch mode sees it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to and isinstance(args[1] if len(args) > 1 else None, Tensor):
            args = (args[0], args[1].device, args[1].dtype, *args[2:])
        if func is Tensor.tolist and isinstance(args[0], Elsewhere):
            args = (args[0].cpu(),)
        if func is torch.nn.functional.scaled_dot_product_attention and _watch.held == META:
            return _fused(*args, **kwargs)
        device = kwargs.pop("device", None) if func is torch.tensor else None
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


@contextmanager
def devices(*, only_shapes: bool = False) -> Iterator[Watch]:
    """Let there be such devices while the context lasts.

    Args:
        only_shapes: Whether tensors there have no numbers; where the host asks for one it gets 1, or True.
    """
    global _watch  # noqa: PLW0603 (tensors are made where nothing can be handed to them)
    before, _watch = _watch, Watch(META if only_shapes else CPU)
    try:
        with mock.patch("torch.cuda._lazy_init"), _Operations(), _Data():
            yield _watch
    finally:
        _watch = before


def place(model: torch.nn.Module, device: torch.device) -> None:
    """Let a model's parameters and buffers say that they lie on a device."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None and not isinstance(tensor, Elsewhere):
                    tensors[key] = Elsewhere(tensor.detach(), device)


def lay_out(model: PreTrainedModel, places: Mapping[str, str]) -> None:
    """Put a model's modules on devices, with accelerate's hooks, as `parallelize=True` does on real ones."""
    for name, where in places.items():
        device, module = torch.device(where), model.get_submodule(name)
        place(module, device)
        add_hook_to_module(module, AlignDevicesHook(execution_device=device, skip_keys=["past_key_values", "cache"]))
    add_hook_to_module(model, AlignDevicesHook(io_same_device=True, skip_keys=["past_key_values", "cache"]))
    model.hf_device_map = dict(places)
