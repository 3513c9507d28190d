"""Implement ``features: cache``: run the frozen part of a network once, and train the rest on its outputs."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.data import Dataset

from surgeon.errors import SurgeonWarning, TrainingError
from surgeon.graph.tensors import tensors_of
from surgeon.interfaces.splits import Splits
from surgeon.training.cache_room import cache_folder, make_room, used
from surgeon.training.objectives import call_of
from surgeon.training.penalties import in_eval_mode

PREFIX = "surgeon_features."
"""The prefix of feature columns in a batch."""
RANDOM = re.compile("Dropout|DropPath|StochasticDepth|DropBlock")
PROBED = 4
"""How many samples to compare the network with and without cached features on."""


class FeatureCache:
    """Replace the frozen part of a network by its stored outputs for every training sample.

    The frozen part is everything that runs before the first module that is trained or random; its output is the output
    of its last module, the site. Dropout inside a module whose parameters are all frozen is off, because it would only
    add noise to features that nothing trains; one between such a module and a head belongs to the head. In training
    that module returns the stored features of the batch, and the modules before it return constants without running.
    Whether the rest reads nothing else is tested on samples, not inferred.

    Features are in memory-mapped files named by a digest of the frozen tensors, of the inputs of every sample and of
    the site, so features of another network or other data are never used.

    Args:
        model: The network, on the device for training.
        splits: The data.
        batch_size: Samples per batch for the frozen part.

    Raises:
        TrainingError: Samples are varied, no parameters are frozen before the first trained or random module, or the
            rest reads more than the site's output.
    """

    def __init__(self, model: nn.Module, splits: Splits, batch_size: int = 64) -> None:
        if varied(splits.train):
            raise _refused("samples vary between epochs", "leave augment out, or features: none")
        sample = splits.train[0]
        if collated := [name for name in splits.inputs if name not in sample]:
            raise _refused(f"{collated[0]} is made for each batch, and not for a sample", "features: none")
        self.model = model
        self.splits = splits
        self.call = call_of(model, splits.inputs)
        self.device = next(model.parameters()).device
        self.batch_size = batch_size
        self.current: list[Tensor] | None = None
        self._size = len(splits.train)  # type: ignore[arg-type]
        self._rest: list[dict[str, Tensor]] = []
        self._constants: dict[str, Any] = {}
        self._modules = dict(model.named_modules())
        self.frozen = self._frozen_modules()
        self.site = self.frozen[-1]
        self._record_constants()
        self.stored = self._stored()
        self._try()

    # ---- serving

    def dataset(self) -> CachedSamples:
        """Return the training samples with features instead of their inputs."""
        constants = {name: value[0].cpu() for name, value in self._inputs.items()}
        return CachedSamples(self._rest, self.stored, constants)

    def serve(self, batch: Mapping[str, Tensor], *, training: bool) -> None:
        """Make the site return the features in ``batch`` from now on; without features nothing is replaced."""
        names = [f"{PREFIX}{number}" for number in range(len(self.stored))]
        self.current = [batch[name] for name in names] if training and names[0] in batch else None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the forward of every frozen module for the context."""
        for name in self.frozen:
            module = self._modules[name]
            module.forward = partial(self._forward, name, module.forward)
        try:
            yield
        finally:
            self.current = None
            for name in self.frozen:
                del self._modules[name].forward

    def _forward(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.current is None:
            return forward(*args, **kwargs)
        count = len(self.current[0])
        if name == self.site:
            leaves: list[Any] = list(self._leaves)
            for position, value in zip(self._places, self.current, strict=True):
                leaves[position] = value
            return tree_unflatten(leaves, self._structure)
        return tree_map(lambda leaf: _repeated(leaf, count), self._constants[name])

    # ---- the frozen part

    def _frozen_modules(self) -> list[str]:
        """Return the outermost modules that run once each before the first trained or random one."""
        order: list[str] = []
        stopped: list[str] = []
        inside: list[str] = []

        def before(name: str, module: nn.Module, args: Any) -> None:
            if stopped or inside:
                return
            trains = any(p.requires_grad for p in module._parameters.values() if p is not None)
            if trains or _changes(module):
                stopped.append(name)
            elif _is_frozen(module) or not (
                any(True for _ in module.parameters()) or any(map(_changes, module.modules()))
            ):
                inside.append(name)

        def after(name: str, module: nn.Module, args: Any, output: Any) -> None:
            if inside and inside[-1] == name:
                order.append(inside.pop())

        handles = []
        for name, module in self._modules.items():
            handles.append(module.register_forward_pre_hook(partial(before, name)))
            handles.append(module.register_forward_hook(partial(after, name)))
        try:
            with self._training():
                self.call(self.model, self._batch(range(min(2, self._size))))
                drawn = bool(stopped) and _changes(self._modules[stopped[0]])
        finally:
            for handle in handles:
                handle.remove()
        if not any(True for name in order for _ in self._modules[name].parameters()):
            first_stop = stopped[0] if stopped else "nothing"
            reason = "is random or uses statistics of the batch" if drawn else "is trained"
            raise _refused(
                f"no module with parameters is frozen before {first_stop}, which {reason}",
                "freeze everything below the head (freeze: all_but: head), or features: none",
            )
        if len(set(order)) < len(order):
            raise _refused("a frozen module runs more than once", "features: none")
        self._report(order, stopped)
        return order

    def _report(self, order: Sequence[str], stopped: Sequence[str]) -> None:
        """Warn if most of the frozen part runs in every step, so that the cache saves little."""
        frozen = {name: p.numel() for name, p in self.model.named_parameters() if not p.requires_grad}
        late = sum(count for name, count in frozen.items() if not _inside(name, order))
        if 2 * late > sum(frozen.values()):
            share = f"{100 * late / sum(frozen.values()):.0f} % of the frozen parameters"
            reason = (
                "is trained" if any(p.requires_grad for p in self._modules[stopped[0]].parameters()) else "is random"
            )
            warnings.warn(
                f"features: cache stores the output of {order[-1]}, and {share} run in every step, after {stopped[0]}, "
                f"which {reason}",
                SurgeonWarning,
                stacklevel=2,
            )

    def _record_constants(self) -> None:
        """Record each frozen module's output for one sample; for all but the last, it serves for every sample."""

        def after(name: str, module: nn.Module, args: Any, output: Any) -> None:
            self._constants[name] = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, output)

        handles = [self._modules[name].register_forward_hook(partial(after, name)) for name in self.frozen]
        try:
            with torch.no_grad(), in_eval_mode(self.model):
                self.call(self.model, self._batch([0]))
        finally:
            for handle in handles:
                handle.remove()
        self._leaves, self._structure = tree_flatten(self._constants[self.site])
        self._places = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor) and leaf.shape[:1] == (1,)]
        if not self._places:
            raise _refused(f"{self.site} has no output tensor with one row per sample", "features: none")
        first = self._batch([0])
        # integers, such as a token mask, may be read above the site and are cheap to keep
        self._inputs = {name: first[name] for name in self.splits.inputs if first[name].is_floating_point()}
        if any(self._leaves[place].dtype == torch.bfloat16 for place in self._places):
            raise _refused(f"{self.site} has a bfloat16 output, which cannot be stored", "features: none")

    # ---- the files

    def _stored(self) -> list[np.ndarray[Any, Any]]:
        shapes = [tuple(self._leaves[place].shape[1:]) for place in self._places]
        key = self._key()
        folder = cache_folder()
        paths = [folder / f"{key}-{number}.npy" for number in range(len(shapes))]
        if not all(path.exists() for path in paths):
            make_room(sum(self._leaves[p].element_size() * self._leaves[p].numel() for p in self._places) * self._size)
            self._write(paths, shapes)
        used(paths)
        return [np.load(path, mmap_mode="r") for path in paths]

    def _write(self, paths: Sequence[Path], shapes: Sequence[tuple[int, ...]]) -> None:
        """Run the frozen part over all samples; files get their names only when they are complete."""
        scratch = [path.with_name(f".{path.name}.{os.getpid()}") for path in paths]
        kinds = [torch.empty((), dtype=self._leaves[place].dtype).numpy().dtype for place in self._places]
        files = [
            np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(self._size, *shape))
            for path, kind, shape in zip(scratch, kinds, shapes, strict=True)
        ]
        captured: list[Any] = []
        handle = self._modules[self.site].register_forward_hook(lambda module, args, output: captured.append(output))
        try:
            with torch.no_grad(), in_eval_mode(self.model):
                for start in range(0, self._size, self.batch_size):
                    rows = range(start, min(start + self.batch_size, self._size))
                    captured.clear()
                    self.call(self.model, self._batch(rows))
                    leaves = tree_flatten(captured[0])[0]
                    for place, file, shape in zip(self._places, files, shapes, strict=True):
                        if tuple(leaves[place].shape) != (len(rows), *shape):
                            raise _refused(
                                f"the output of {self.site} differs in shape between samples", "features: none"
                            )
                        file[start : rows.stop] = leaves[place].cpu().numpy()
            for file, temporary, path in zip(files, scratch, paths, strict=True):
                file.flush()
                temporary.replace(path)
        finally:
            handle.remove()
            for temporary in scratch:
                temporary.unlink(missing_ok=True)

    def _key(self) -> str:
        digest = hashlib.sha256(f"1 {torch.__version__} {self.device.type} {self.frozen}".encode())
        parts = [(name, tensor) for name, tensor in tensors_of(self.model) if self._below(name)]
        for name, tensor in [*parts, *((n, b) for n, b in self.model.named_buffers() if self._below(n))]:
            add_tensor(digest, name, tensor)
        digest.update(repr(self.model).encode())
        for row in range(self._size):
            sample = self.splits.train[row]
            for name in self.splits.inputs:
                add_tensor(digest, name, sample[name])
            # kept in memory, so that pictures need not be read again for their labels
            self._rest.append({name: value for name, value in sample.items() if name not in self._inputs})
        return digest.hexdigest()[:40]

    def _below(self, name: str) -> bool:
        return _inside(name, self.frozen)

    # ---- test

    def _try(self) -> None:
        rows = np.linspace(0, self._size - 1, min(PROBED, self._size), dtype=int).tolist()
        cached = self.dataset()
        batch = self.splits.collate([cached[row] for row in rows])
        batch = {name: column.to(self.device) for name, column in batch.items()}
        with torch.no_grad(), in_eval_mode(self.model):
            expected = self.call(self.model, self._batch(rows))
            with self.installed():
                self.serve(batch, training=True)
                outputs = self.call(self.model, batch)
        for name, output in expected.items():
            scale = output.float().abs().max().clamp(min=1e-6)
            if outputs[name].shape != output.shape or (outputs[name] - output).float().abs().max() > 1e-3 * scale:
                raise _refused(
                    f"the output {name!r} depends on more of the frozen part than the output of {self.site}",
                    "features: none",
                )

        self._try_training(rows)

    def _try_training(self, rows: Sequence[int]) -> None:
        """Check that the frozen part gives the same outputs in training mode but for the dropout of frozen modules.

        The forward of another module may contain dropout as a function.
        """
        captured: list[Any] = []
        handle = self._modules[self.site].register_forward_hook(lambda module, args, output: captured.append(output))
        try:
            with self._training():
                self.call(self.model, self._batch(rows))
        finally:
            handle.remove()
        leaves = tree_flatten(captured[0])[0]
        for place, stored in zip(self._places, self.stored, strict=True):
            cached = torch.from_numpy(np.array(stored[rows]))
            if not torch.allclose(
                leaves[place].cpu(), cached, rtol=1e-3, atol=1e-3 * float(cached.float().abs().max())
            ):
                raise _refused(f"{self.site} is random in training", "set its dropout to 0, or features: none")

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Set training mode without gradients, and restore buffers, modes and the random state afterwards.

        Frozen modules stay in eval mode, so that their dropout is off, unless they have statistics of the batch.
        """
        modes = {module: module.training for module in self._modules.values()}
        buffers = {name: tensor.clone() for name, tensor in self.model.named_buffers()}
        self.model.train()
        for module in self._modules.values():
            if _is_frozen(module):
                for part in module.modules():
                    part.training = False
        try:
            with torch.no_grad(), torch.random.fork_rng():
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for name, tensor in self.model.named_buffers():
                tensor.copy_(buffers[name])

    def _batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        batch = self.splits.collate([self.splits.train[row] for row in rows])
        return {name: column.to(self.device) for name, column in batch.items()}


class CachedSamples(Dataset[dict[str, Tensor]]):
    """Training samples with features, and with constants for inputs that are no longer read."""

    def __init__(
        self,
        rest: Sequence[dict[str, Tensor]],
        stored: Sequence[np.ndarray[Any, Any]],
        constants: Mapping[str, Tensor],
    ) -> None:
        self.rest = rest
        self.stored = list(stored)
        self.constants = dict(constants)

    def __len__(self) -> int:
        return len(self.rest)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        features = {f"{PREFIX}{n}": torch.from_numpy(np.array(stored[index])) for n, stored in enumerate(self.stored)}
        return {**self.constants, **self.rest[index], **features}


def _inside(name: str, modules: Sequence[str]) -> bool:
    """Return whether the tensor ``name`` belongs to one of the modules."""
    return any(name.startswith(f"{module}.") or not module for module in modules)


def _repeated(leaf: Any, count: int) -> Any:
    """Expand one sample's tensor to ``count`` samples without copying."""
    if isinstance(leaf, Tensor) and leaf.shape[:1] == (1,):
        return leaf.expand(count, *leaf.shape[1:])
    return leaf


def _changes(module: nn.Module) -> bool:
    """Return whether a module itself is random or depends on the batch in its current mode."""
    if not module.training:
        return False
    if RANDOM.search(type(module).__name__):
        return any(float(getattr(module, name, 0) or 0) > 0 for name in ("p", "drop_prob"))
    return _counts(module)


def _is_frozen(module: nn.Module) -> bool:
    """Return whether a module has parameters, all of them frozen, and no statistics that training changes."""
    parameters = [parameter.requires_grad for parameter in module.parameters()]
    return bool(parameters) and not any(parameters) and not any(map(_counts, module.modules()))


def _counts(module: nn.Module) -> bool:
    """Return whether a module uses and updates statistics of the batch in training."""
    statistics = getattr(module, "running_mean", None) is not None
    return module.training and (statistics or isinstance(module, nn.modules.batchnorm._BatchNorm))


def varied(samples: Any) -> bool:
    """Return whether a dataset, or a part of one, varies its samples."""
    parts = [member.samples for member in getattr(samples, "members", ())]
    encoders = getattr(samples, "encoders", ())
    return any(getattr(encode, "varies", False) for encode in encoders) or any(map(varied, parts))


def add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    """Add the name, shape, dtype and bytes of a tensor to a digest."""
    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _refused(reason: str, hint: str) -> TrainingError:
    return TrainingError(f"features cannot be cached: {reason}", where="train.features", hint=hint)
