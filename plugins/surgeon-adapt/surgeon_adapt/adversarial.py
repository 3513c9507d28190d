"""cdan and mdd: train layers beside the network against it, so that what it computes suits both domains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from surgeon import Operation, Penalty, TrainingError
from surgeon_adapt.fields import Adversary, Name, domains_of, number_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from surgeon import Surgery
    from surgeon.interfaces.training import Term
    from surgeon.training.penalties import Run

LARGEST = 4096
"""The width of an outer product from which on CDAN projects it (Long et al. 2018)."""


def classes_of(run: Run, output: str, method: str) -> int:
    """Return the number of classes of an output.

    Raises:
        TrainingError: There is no such output, or it has no scores of two classes or more for each sample.
    """
    import torch

    if output not in run.outputs:
        raise TrainingError(
            f"{method} needs the scores of classes, and the network has no output {output!r}",
            hint=f"choose one with output: {', '.join(run.outputs)}",
        )
    assert run.example is not None
    device = next(run.model.parameters()).device
    with torch.no_grad():  # the network is in eval mode before training begins
        scores = run.call(run.model, {name: column.to(device) for name, column in run.example.items()})[output]
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise TrainingError(
            f"{method} needs scores (batch, classes), and {output!r} has shape {tuple(scores.shape)}",
            hint="name the output of a classifier with output:",
        )
    return int(scores.shape[1])


class CDANFields(Adversary):
    """Hold the keys of ``cdan``."""

    entropy: bool = True
    """Whether samples with certain predictions count more, by 1 + exp(-entropy) (CDAN+E)."""
    product: Literal["auto", "full", "random"] = "auto"
    """How features f and predictions g are combined: full is their outer product, random a random projection of it;
    auto takes the full one up to 4096 entries."""
    width: PositiveInt = 1024
    """The width of the random projection."""


class CDANTerm(CDANFields, Penalty):
    """Add the loss of a discriminator of domains that reads features and predictions together."""

    def begin(self, run: Run) -> Term:
        """Make the discriminator."""
        from surgeon_adapt.conditioning import Multilinear, certainty, domain_loss
        from surgeon_adapt.layers import Layers, reversed_gradient

        domains = domains_of(run, CDAN.name)
        classes = classes_of(run, self.output, CDAN.name)
        read = run.features(self.at)
        full = self.product == "full" or (self.product == "auto" and read.width * classes <= LARGEST)
        combine = Multilinear(read.width, classes, None if full else self.width, run.seed)
        discriminate = Layers(run, CDAN.name, [combine.width, *self.hidden, len(domains)])

        def term(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
            predictions = outputs[self.output].detach().float().softmax(1)
            weights = certainty(predictions) if self.entropy else predictions.new_ones(len(predictions))
            features = reversed_gradient(read(batch).flatten(1).float(), self.strength * self.rise(run.progress()))
            return self.weight * domain_loss(discriminate(combine(features, predictions)), batch["domain"], weights)

        return term


class CDAN(CDANFields, Operation):
    """Train a discriminator of domains on features and predictions together, and the trunk against it.

    Where gradient_reversal compares features only, the discriminator reads their outer product with the predicted
    probabilities, so that the parts of features that belong to each class are compared (Long et al. 2018). As in the
    authors' code, no gradient flows through the predictions or the weights by entropy. Domains have the same weight,
    however many samples of each are in a batch. No label is used.

    The discriminator learns beside the network: the structure does not change, and it is not in the artifact.
    """

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Check that the site exists; nothing is edited."""
        features = surgery.features(self.at)
        surgery.note(f"training trains a discriminator of domains on {features.site or 'the output'} × {self.output}")
        return surgery.model

    def penalties(self) -> list[Penalty]:
        """Ask for the discriminator's loss."""
        return [CDANTerm(**dict(self))]


class MDDFields(Adversary):
    """Hold the keys of ``mdd``."""

    target: Name
    """The domain that the network is to be adapted to; all others are the source."""
    margin: float = Field(default=4.0, ge=1, allow_inf_nan=False)
    """γ = exp(ρ) for a margin ρ: how much agreement on the source counts."""


class MDDTerm(MDDFields, Penalty):
    """Add the loss of a second classifier that agrees on the source and disagrees on the target."""

    def begin(self, run: Run) -> Term:
        """Make the second classifier."""
        from surgeon_adapt.conditioning import margin_loss
        from surgeon_adapt.layers import Layers, reversed_gradient

        number = number_of(self.target, domains_of(run, MDD.name), "mdd.target")
        classes = classes_of(run, self.output, MDD.name)
        read = run.features(self.at)
        classify = Layers(run, MDD.name, [read.width, *self.hidden, classes])

        def term(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
            features = reversed_gradient(read(batch).flatten(1).float(), self.strength * self.rise(run.progress()))
            predicted = outputs[self.output].detach().argmax(1)
            return self.weight * margin_loss(classify(features), predicted, batch["domain"] == number, self.margin)

        return term


class MDD(MDDFields, Operation):
    """Reduce the margin disparity discrepancy: how far a second classifier can disagree on the target alone.

    The second classifier learns to predict on the source what the network predicts, and something else on the target;
    the trunk learns, through a gradient reversal, features on which it cannot (Zhang et al. 2019). No label is used.

    The second classifier learns beside the network: the structure does not change, and it is not in the artifact.
    """

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Check that the site exists; nothing is edited."""
        features = surgery.features(self.at)
        where = features.site or "the output"
        surgery.note(f"training trains a second classifier on {where}, for the target {self.target}")
        return surgery.model

    def penalties(self) -> list[Penalty]:
        """Ask for the second classifier's loss."""
        return [MDDTerm(**dict(self))]
