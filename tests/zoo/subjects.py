"""The networks of the sweep with real values, and what to feed them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.families.inputs import Inputs
from surgeon.families.transformers.tasks import reads_padding
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.graph.roles import Roles, find_roles
from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.tensors import tensors_of
from surgeon.graph.trace import Trace, trace
from surgeon.nn.features import main_tensor
from surgeon.plugins import load as load_plugins
from zoo.reasons import reason_of
from zoo.tensors import tensors_in, training_loss

SMALL = {"image": (64, 64), "video": (4, 32, 32)}
INSISTENT = ("VisionTransformer", "MaxVit", "Inception3", "S3D", "MViT", "RAFT")
"""torchvision's classes that take, or are declared for, no other size of input than theirs."""
MAIN = "main"
NO_BATCH_NORM = ("VisionTransformer", "MViT", "SwinTransformer", "SwinTransformer3d", "ConvNeXt")
"""Those of which one image makes a batch that can be trained on."""


@dataclass
class Subject:
    """A network, what it takes, and what is known of its parts.

    Attributes:
        name: As in the catalog.
        module: The network with values, in eval mode.
        note: How it was made smaller.
    """

    name: str
    module: nn.Module
    note: str = ""
    inputs: Inputs = field(default_factory=Inputs)
    trace: Trace | None = None
    roles: Roles | None = None
    _output: Any = None
    _features: dict[str, Tensor] = field(default_factory=dict)

    def look(self) -> None:
        """Trace it, find its roles and inputs that a real forward takes."""
        skeleton = skeleton_of(self.module)
        self.trace = trace(skeleton)
        self.roles = find_roles(skeleton, lambda: self.trace, families=load_plugins().families())  # type: ignore[arg-type, return-value]
        inputs = find_inputs(self.module)
        chosen = self.trace.inputs
        others = [c for c in inputs.candidates() if c is not chosen]
        problem: Exception | None = None
        for candidate in (_smaller(self.module, chosen), chosen, *others):
            self.inputs = candidate
            try:
                self.forward(self.module)
                return
            except Exception as error:
                problem = problem or error
        assert problem is not None
        self.inputs = chosen
        raise problem

    def forward(self, model: nn.Module, *, training: bool = False) -> Any:
        """Run ``model``, this network or what has become of it, on the same inputs with the same seed."""
        args, kwargs = self.inputs.tensors(training=training)
        torch.manual_seed(0)
        with torch.set_grad_enabled(training), _set(model, self.inputs.settings), _padding(model):
            return model(*args, **kwargs)

    def own_outputs(self) -> dict[str, Tensor]:
        """What the whole network gives, by the path to each tensor."""
        if self._output is None:
            self._output = self.forward(self.module)
        return dict(tensors_in(self._output))

    @contextmanager
    def frozen(self, names: Collection[str]) -> Iterator[None]:
        """Within it, these parameters take no gradient."""
        if not names:
            yield
            return
        parameters = [p for n, p in self.module.named_parameters() if n in names and p.requires_grad]
        before, self._output = self._output, None
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            self._output = before
            for parameter in parameters:
                parameter.requires_grad_(True)

    def own_main(self) -> Tensor | None:
        """The main tensor of what the whole network gives, if it has one."""
        self.own_outputs()
        return main_tensor(self._output)

    def trouble_in_step(self, site: str | None, frozen: Collection[str], *, training: bool) -> str:
        """Why a copy of the network, before surgery, cannot make a step; empty where it can.

        Args:
            site: Ask of what it produces there, and not of what the network gives; :data:`MAIN` asks of the main
                tensor of that.
            frozen: Parameters that take no gradient.
            training: Whether it is in training mode.
        """
        model, made = copy.deepcopy(self.module).train(training), []
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name not in frozen)
        if site not in (None, MAIN):
            model.get_submodule(site).register_forward_hook(lambda module, args, output: made.append(output))
        try:
            output = self.forward(model, training=True)
            if site == MAIN and (main := main_tensor(output)) is not None:
                made.append(main)
            loss = training_loss(made[-1] if made else output)
            loss.backward()
        except Exception as error:
            return reason_of(error)
        if not torch.isfinite(loss):
            return "its loss is not finite"
        moves = any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
        return "" if moves else "nothing gets a gradient"

    def features(self, site: str, others: Iterable[str]) -> Tensor:
        """What ``site`` produces in a forward of the whole network, before anything overwrites it.

        Args:
            site: The site.
            others: What will be asked for later, so that one forward does.
        """
        if site not in self._features:
            handles = [self.module.get_submodule(s).register_forward_hook(self._keeper(s)) for s in (site, *others)]
            try:
                self.forward(self.module)
            finally:
                for handle in handles:
                    handle.remove()
        return self._features[site]

    def _keeper(self, site: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            tensor = main_tensor(output)
            if tensor is not None:
                self._features[site] = tensor.detach().clone()

        return keep


@contextmanager
def _set(model: nn.Module, settings: Mapping[str, Any]) -> Iterator[None]:
    """The settings with which an input is fed (a detector's image size); a network's columns have them too."""
    modules, saved = dict(model.named_modules()), []
    for path, value in settings.items():
        for prefix in ("", "columns.0.", "columns.1."):
            owner, _, name = f"{prefix}{path}".rpartition(".")
            if owner in modules and hasattr(modules[owner], name):
                saved.append((modules[owner], name, getattr(modules[owner], name)))
                setattr(modules[owner], name, value)
    try:
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)


@contextmanager
def _padding(model: nn.Module) -> Iterator[None]:
    """Give a decoder that classifies a padding token, as training does from the tokenizer: bare configs name none."""
    config = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    lacks = any(map(reads_padding, type(model).__mro__)) and text.pad_token_id is None
    if lacks:
        text.pad_token_id = 0
    try:
        yield
    finally:
        if lacks:
            text.pad_token_id = None


def _smaller(model: nn.Module, inputs: Inputs) -> Inputs:
    """torchvision's networks run on smaller images than they are declared for."""
    names = {cls.__name__ for cls in type(model).__mro__}
    if not type(model).__module__.startswith("torchvision") or inputs.training:
        return inputs
    specs = []
    for spec in inputs.args:
        batch, channels, *size = spec.shape
        if not names & set(INSISTENT):
            size = list(SMALL["image"] if len(size) == 2 else SMALL["video"])
        batch = 1 if names & set(NO_BATCH_NORM) else batch
        specs.append(replace(spec, shape=(batch, channels, *size)))
    return replace(inputs, args=tuple(specs))


def build(name: str) -> Subject:
    """The network ``name`` of the catalog.

    Raises:
        Exception: It cannot be built here; the reason is the error's.
    """
    torch.manual_seed(0)
    library, _, rest = name.partition("/")
    if library == "torchvision":
        return Subject(name, torchvision_module(rest))
    from zoo.shrinking import transformers_module

    model_type, cls = rest.split("/")
    module, note = transformers_module(model_type, cls)
    return Subject(name, module, note)


def torchvision_module(name: str) -> nn.Module:
    """A builder's network at full size, with values drawn faster than it would itself."""
    from surgeon.architectures.torchvision import Torchvision
    from surgeon.interfaces.architecture_name import Architecture

    with _no_initialisation():
        module = Torchvision().build(Architecture(scheme="torchvision", name=name))
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            _draw(key, parameter)
        for key, buffer in tensors_of(module):
            if not isinstance(buffer, nn.Parameter) and buffer.is_floating_point() and "running" in key:
                buffer.fill_(1.0 if key.endswith("var") else 0.01)
    return module.eval()


@contextmanager
def _no_initialisation() -> Iterator[None]:
    saved = {n: f for n, f in vars(nn.init).items() if n.endswith("_") and not n.startswith("_") and callable(f)}
    for name in saved:
        setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        for name, function in saved.items():
            setattr(nn.init, name, function)


def _draw(name: str, parameter: nn.Parameter) -> None:
    """Values with which activations neither vanish nor explode."""
    if parameter.dim() > 1:
        fan = parameter[0].numel()
        parameter.uniform_(-1, 1).mul_((3 / fan) ** 0.5)
    elif name.endswith("weight"):
        parameter.uniform_(0.9, 1.1)
    else:
        parameter.uniform_(-0.1, 0.1)
