"""Record what each module gets in a forward pass, and make tensors like it, to run modules by themselves."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree

from surgeon import OperationError
from surgeon.graph.trace import run_again

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Calls:
    """Hold the arguments of every module in one forward pass of a skeleton, as tensors without values.

    Args:
        surgery: Traces the network.
    """

    def __init__(self, surgery: Surgery) -> None:
        self._traced = surgery.trace()
        self._given: dict[str, Arguments] = {}
        self._model = surgery.model
        run_again(surgery.model, self._traced, self._recording())

    @property
    def device(self) -> str:
        """Return the device on which modules run without values: ``meta``, or ``cpu`` where they need some."""
        return "meta" if self._traced.evidence == "meta" else "cpu"

    def of(self, site: str, device: str) -> Arguments:
        """Make arguments for the module at ``site``, the same ones each time.

        Raises:
            OperationError: The module does not run.
        """
        if not site:
            args, kwargs = self._traced.inputs.tensors(device, torch.float32)
            takes = inspect.signature(self._model.forward).parameters
            return tuple(args), {**kwargs, **({"use_cache": False} if "use_cache" in takes else {})}
        if site not in self._given:
            raise OperationError(f"{site} does not run in a forward pass", hint="leave it out with at:")
        generator = torch.Generator().manual_seed(0)

        def made(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or device == "meta":
                return value
            if value.is_floating_point():
                return torch.randn(value.shape, generator=generator)
            like = torch.ones if value.dtype == torch.bool else torch.zeros
            return like(value.shape, dtype=value.dtype)

        arguments: Arguments = _pytree.tree_map(made, self._given[site])
        return arguments

    def shape(self, site: str) -> tuple[int, ...] | None:
        """Return the shape of the first tensor that a module gets; None if it does not run or gets none."""
        leaves = _pytree.tree_leaves(self._given.get(site, ()))
        return next((tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)), None)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        for site, module in self._model.named_modules():
            if site:
                module.register_forward_pre_hook(self._recorder(site), with_kwargs=True)
        yield

    def _recorder(self, site: str) -> Any:
        def record(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            self._given.setdefault(site, (_plain(args), _plain(dict(kwargs))))

        return record


def _plain(value: Any) -> Any:
    """Keep tensors, without values, and plain settings; a cache of keys and values becomes None."""
    if isinstance(value, torch.Tensor):
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        return torch.empty(tuple(value.shape), dtype=dtype, device="meta")
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) if key != "use_cache" else False for key, item in value.items()}
    return value if isinstance(value, (bool, int, float, str)) else None
