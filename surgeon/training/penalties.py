"""Define the training run that a penalty gets when training begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surgeon.errors import OperationError, SiteError, SurgeonError, TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.nn.grafts import Tap, hook, unhook
from surgeon.training.anatomy import Anatomy
from surgeon.training.calls import Batch, Call
from surgeon.training.objectives import Target
from surgeon.training.pooled_features import PooledFeatures

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


@dataclass
class Run:
    """Hold one training run for a penalty: the network, and its initial values.

    Attributes:
        model: The network itself, without an engine's wrapper.
        call: Calls it with a batch.
        anatomy: Finds its parameters.
        outputs: The names of its outputs, and whether a gradient reaches each.
        trained: The outputs that an objective trains with labels.
        load: Makes data from a source's settings.
        seed: The run's seed.
        targets: The objectives of the run.
        splits: The data.
        example: A batch of two training samples.
        plugins: The plugins.
        teacher: The network to learn from, in eval mode and without gradients; None where there is none.
        learnt: What penalties learn beside the network: it trains with it, and is not in the result.
        ending: Closed after training; removes what penalties added to the network.
        progress: Returns the progress of training, from 0 to 1.
    """

    model: nn.Module
    call: Call
    anatomy: Anatomy
    outputs: Mapping[str, bool]
    trained: set[str]
    load: Callable[..., Splits]
    seed: int
    targets: Sequence[Target] = ()
    splits: Splits | None = None
    example: Batch | None = None
    plugins: Plugins | None = None
    teacher: nn.Module | None = None
    learnt: dict[str, nn.Parameter] = field(default_factory=dict)
    ending: ExitStack = field(default_factory=ExitStack)
    progress: Callable[[], float] = lambda: 0.0

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """Copy the initial values of all trainable parameters and buffers, once for all penalties."""
        trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return {name: t.detach().clone() for name, t in [*trainable.items(), *self.model.named_buffers()]}

    def parameters(self, selectors: Sequence[str] | None = None, *, kept: bool | None = None) -> list[str]:
        """List trainable parameters: at and below ``selectors``, inherited from the source (kept) or new.

        Raises:
            TrainingError: A selector matches nothing.
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
        """Add taps that read the outputs of sites in every forward, until training is over.

        Raises:
            TrainingError: A selector matches nothing, or a site with new parameters.
        """
        try:
            sites = self.anatomy.sites(selectors)
        except SiteError as error:
            raise TrainingError(error.message, hint=error.hint) from error
        for site in sites:
            names = {f"{site.name}.{name}" for name, _ in site.module.named_parameters()}
            if new := sorted(names - self.anatomy.kept):
                raise TrainingError(f"{site} holds new parameters ({new[0]}), so there is nothing to conserve")
        return {site.name: self._tapped(site.module) for site in sites}

    def tap(self, anatomy: Anatomy, selector: str, where: str) -> Tap:
        """Add a tap, until training ends, to the one site of a network that ``selector`` matches.

        Raises:
            TrainingError: The selector matches no site, or several.
        """
        try:
            sites = anatomy.sites([selector])
        except SiteError as error:
            raise TrainingError(error.message, where=where, hint=error.hint) from error
        if len(sites) > 1:
            raise TrainingError(f"{selector!r} names {len(sites)} sites, and one is wanted", where=where)
        return self._tapped(sites[0].module)

    def features(self, at: str | None = None) -> PooledFeatures:
        """Read the features of a site in every forward, until training ends, as one vector for each sample.

        Call the result with the batch, once in every step.

        Args:
            at: A selector that names one site. Default: the features that the head reads.

        Raises:
            TrainingError: The selector matches no site or several, or the site produces no features.
        """
        try:
            described = self.anatomy.features(at)
        except (OperationError, SiteError) as error:
            raise TrainingError(error.message, hint=error.hint) from error
        return PooledFeatures(self._tapped(self.model.get_submodule(described.site)), described)

    def learn(self, name: str, value: Tensor) -> nn.Parameter:
        """Train ``value`` with the network; checkpoints contain it, the result does not.

        Raises:
            TrainingError: Another penalty has taken the name.
        """
        if name in self.learnt:
            raise TrainingError(f"two penalties learn {name!r} beside the network", hint="take another name")
        self.learnt[name] = parameter = nn.Parameter(value)
        return parameter

    def _tapped(self, module: nn.Module) -> Tap:
        tap = Tap(copies=True)  # a later operation may overwrite the output in place
        hook(module, tap.read)
        self.ending.callback(partial(unhook, module, tap.read))
        return tap

    def as_it_started(self, batch: Batch) -> dict[str, Tensor]:
        """Run the initial network on a batch, in eval mode and without gradients."""
        with torch.no_grad(), in_eval_mode(self.model):
            return self.call(lambda *args, **kwargs: functional_call(self.model, self.start, args, kwargs), batch)

    def old_output(self, name: str, method: str) -> str:
        """Check that ``name`` is an output of the original network, and return it.

        Raises:
            TrainingError: It is not.
        """
        hint = "keep the old head next to the new one: multitask with original: keep"
        if name not in self.outputs:
            raise TrainingError(
                f"{method} conserves the output {name!r}, but the outputs are: {', '.join(self.outputs)}", hint=hint
            )
        if new := sorted(self._head_of(name) - self.anatomy.kept):
            raise TrainingError(
                f"{method} conserves the output {name!r}, which is made by new parameters ({new[0]})", hint=hint
            )
        return name

    def _head_of(self, output: str) -> set[str]:
        """List the parameters of the head that computes an output."""
        parameters = {name for name, _ in self.model.named_parameters()}
        branch = {name for name in parameters if name.startswith(f"grafts.{output}.")}
        try:
            return branch or {name for name in self.anatomy.parameters(["@head"]) if not name.startswith("grafts.")}
        except SurgeonError:  # the network has no recognisable head
            return set()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode within the block, then restore its mode."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
