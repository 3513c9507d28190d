"""What an operation's penalty is given when training begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surgeon.errors import SiteError, SurgeonError, TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.nn.grafts import Tap, hook, unhook
from surgeon.training.anatomy import Anatomy
from surgeon.training.objectives import Batch, Call


@dataclass
class Run:
    """One training run, as a penalty sees it: the network, and the values that it started from.

    Attributes:
        model: The network itself, not what an engine wraps it in.
        call: How it is called with a batch.
        anatomy: Where its parameters lie.
        outputs: The outputs that it has, and whether a gradient reaches each.
        trained: The outputs that an objective trains by labels.
        load: Makes data from a source's settings.
        seed: The run's seed.
        ending: Closed when training is over: what a penalty put into the network for the time goes then.
    """

    model: nn.Module
    call: Call
    anatomy: Anatomy
    outputs: Mapping[str, bool]
    trained: set[str]
    load: Callable[..., Splits]
    seed: int
    ending: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """The values of all that may change, as training starts from them: one copy, whoever asks for it."""
        trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return {name: t.detach().clone() for name, t in [*trainable.items(), *self.model.named_buffers()]}

    def parameters(self, selectors: Sequence[str] | None = None, *, kept: bool | None = None) -> list[str]:
        """The names of parameters that train: at and below ``selectors``, inherited from the source (kept) or new.

        Raises:
            TrainingError: A selector names nothing.
        """
        names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        if selectors:
            try:
                chosen = self.anatomy.parameters(selectors)
            except SiteError as error:
                raise TrainingError(error.message, hint=error.hint) from error
            names = [name for name in names if name in chosen]
        return names if kept is None else [name for name in names if (name in self.anatomy.inherited) is kept]

    def watch(self, selectors: Sequence[str]) -> dict[str, Tap]:
        """Taps that read what sites produce in every forward, until training is over.

        Raises:
            TrainingError: A selector names nothing, or a site with parameters that are new.
        """
        try:
            sites = self.anatomy.sites(selectors)
        except SiteError as error:
            raise TrainingError(error.message, hint=error.hint) from error
        taps = {}
        for site in sites:
            own = {f"{site.name}.{name}" for name, _ in site.module.named_parameters()}
            if new := sorted(own - self.anatomy.kept):
                raise TrainingError(
                    f"{site} holds new parameters ({new[0]}), so that it has learnt nothing to conserve"
                )
            taps[site.name] = tap = Tap(copies=True)  # whatever may overwrite it later
            hook(site.module, tap.read)
            self.ending.callback(partial(unhook, site.module, tap.read))
        return taps

    def as_it_started(self, batch: Batch) -> dict[str, Tensor]:
        """The outputs for a batch of the network that training started from, in eval mode and without gradients."""
        with torch.no_grad(), in_eval_mode(self.model):
            return self.call(lambda *args, **kwargs: functional_call(self.model, self.start, args, kwargs), batch)

    def old_output(self, name: str, method: str) -> str:
        """The output ``name``, if it is one that surgery kept and that no objective trains by labels.

        Raises:
            TrainingError: It is not.
        """
        hint = "keep the old head beside the new one: multitask with original: keep"
        if name not in self.outputs:
            raise TrainingError(
                f"{method} conserves the output {name!r}, and there are: {', '.join(self.outputs)}", hint=hint
            )
        if new := sorted(self._head_of(name) - self.anatomy.kept):
            raise TrainingError(
                f"{method} conserves the output {name!r}, which is made by new parameters ({new[0]})", hint=hint
            )
        return name

    def _head_of(self, output: str) -> set[str]:
        """The parameters of the head that makes an output."""
        parameters = {name for name, _ in self.model.named_parameters()}
        branch = {name for name in parameters if name.startswith(f"grafts.{output}.")}
        try:
            return branch or {name for name in self.anatomy.parameters(["@head"]) if not name.startswith("grafts.")}
        except SurgeonError:  # it has no head that could be told from the rest
            return set()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode for the time, and back in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
