"""Define penalties that keep a network near its state before fine-tuning (conservation training)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from surgeon.data.sources import AnySource
from surgeon.errors import TrainingError
from surgeon.interfaces.selector import Selector
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Penalty, Term
from surgeon.training.calls import Batch
from surgeon.training.losses import soft_loss
from surgeon.training.penalties import Run, in_eval_mode


class L2SP(Penalty):
    """Decay weights towards their starting point (Li, Grandvalet & Davoine 2018, eq. 2).

    ``weight / 2 · Σ (w - w⁰)²`` over the parameters that came from the source, or were derived from its values (a first
    convolution for other channels, resized positions), and ``new_weight / 2 · Σ w²`` over the new ones.
    """

    weight: float
    new_weight: float
    sites: list[Selector] | None = None

    def begin(self, run: Run) -> Term:
        """Keep the initial values as the starting point."""
        inherited, new = run.parameters(self.sites, kept=True), run.parameters(self.sites, kept=False)
        if not inherited:
            raise TrainingError("l2_sp: no parameter from the source is trained, so there is nothing to conserve")
        start = run.start

        def term(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
            current = dict(run.model.named_parameters())
            moved = torch.stack([(current[name] - start[name]).pow(2).sum() for name in inherited]).sum()
            total = self.weight / 2 * moved
            if new and self.new_weight:
                total = total + self.new_weight / 2 * torch.stack([current[name].pow(2).sum() for name in new]).sum()
            return total

        return term


class EWC(Penalty):
    """Add elastic weight consolidation (Kirkpatrick et al. 2017, eq. 3): ``weight / 2 · Σ F (w - w⁰)²``.

    F is the diagonal of the Fisher information of ``output`` at the start, a mean over samples of the source's
    data: squared gradients of the log-probability of a class drawn from the network's prediction. It needs no labels.
    """

    weight: float
    output: str
    data: AnySource
    samples: int
    sites: list[Selector] | None = None

    def begin(self, run: Run) -> Term:
        """Compute the Fisher information of every trainable parameter."""
        run.old_output(self.output, "ewc")
        if not run.outputs[self.output]:
            raise TrainingError(f"ewc: no gradient reaches {self.output!r}, so training cannot change it")
        names = run.parameters(self.sites)
        fisher = self._fisher(run, names, run.load(self.data))
        start = run.start

        def term(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
            current = dict(run.model.named_parameters())
            parts = [(fisher[name] * (current[name] - start[name]).pow(2)).sum() for name in fisher]
            return self.weight / 2 * torch.stack(parts).sum()

        return term

    def _fisher(self, run: Run, names: list[str], splits: Splits) -> dict[str, Tensor]:
        parameters = {name: run.model.get_parameter(name) for name in names}
        device = next(iter(parameters.values())).device
        draw = torch.Generator().manual_seed(run.seed)
        size = len(splits.train)  # type: ignore[arg-type]
        rows = torch.randperm(size, generator=draw)[: self.samples].tolist()
        totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        with in_eval_mode(run.model):
            for row in rows:
                batch = {k: v.to(device) for k, v in splits.collate([splits.train[row]]).items()}
                logits = classes_last(run.call(run.model, batch)[self.output])
                log_p = F.log_softmax(logits.float(), dim=-1)
                drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=draw).to(device)
                loss = log_p.gather(1, drawn).sum()
                gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                for name, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        totals[name] += gradient.pow(2)
        return {name: total / len(rows) for name, total in totals.items() if total.any()}

    def conserved(self) -> list[str]:
        """Return the old output."""
        return [self.output]


class LwF(Penalty):
    """Keep the old output unchanged on the new data: learning without forgetting (Li & Hoiem 2016, eq. 2 and 3).

    The penalty is ``weight · T² ·`` the KL divergence between the output's distributions, softened by the temperature
    T, of the initial network and the current one. It starts at 0.
    """

    weight: float
    output: str
    temperature: float

    def begin(self, run: Run) -> Term:
        """Keep the initial values, to run the original network in every step."""
        run.old_output(self.output, "lwf")
        if not run.outputs[self.output]:
            raise TrainingError(f"lwf: no gradient reaches {self.output!r}, so training cannot change it")
        _ = run.start  # copied before training changes it

        def term(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
            if not torch.is_grad_enabled():
                return outputs[self.output].sum() * 0
            old = classes_last(run.as_it_started(batch)[self.output])
            distance = soft_loss(classes_last(outputs[self.output]), old, self.temperature).mean()
            return self.weight * self.temperature**2 * distance

        return term

    def conserved(self) -> list[str]:
        """Return the old output."""
        return [self.output]


class FeatureMatching(Penalty):
    """Keep features at sites unchanged on the new data (hints: Romero et al. 2015, eq. 3).

    The penalty is ``weight / 2 ·`` the mean over the sites of ``Σ (f - f⁰)² / Σ (f⁰)²``, sums over the batch, positions
    and channels. Both features have the same shape, so no projection is needed. The division gives sites with large
    and with small features the same weight. Padded positions count too.
    """

    weight: float
    sites: list[Selector]

    def begin(self, run: Run) -> Term:
        """Keep the initial values, to run the original network in every step, and tap the sites."""
        taps = run.watch(self.sites)
        _ = run.start  # copied before training changes it

        def features() -> dict[str, Tensor]:
            values = {site: tap.value for site, tap in taps.items()}
            for site, value in values.items():
                if not isinstance(value, Tensor):
                    raise TrainingError(f"features: {site or 'the network'} has no tensor as output, or does not run")
                taps[site].value = None
            return values

        def term(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
            new = features()
            if fixed := [site for site, value in new.items() if not value.requires_grad]:
                raise TrainingError(
                    f"features: no gradient reaches {fixed[0]}: all layers before it are frozen",
                    hint="choose a later site",
                )
            run.as_it_started(batch)
            old = features()
            parts = []
            for site, before in old.items():
                scale = before.float().pow(2).sum().clamp(min=1e-12)
                parts.append((new[site].float() - before.float()).pow(2).sum() / scale)
            return self.weight / 2 * torch.stack(parts).mean()

        return term


def classes_last(logits: Tensor) -> Tensor:
    """Reshape logits to ``(predictions, classes)``, also those of pixels (classes second) and tokens."""
    if logits.ndim == 4:
        logits = logits.movedim(1, -1)
    return logits.reshape(math.prod(logits.shape[:-1]), logits.shape[-1])
