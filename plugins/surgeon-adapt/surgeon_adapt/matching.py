"""mmd and coral: bring the features of the domains of a batch together by a distance of their distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveFloat

from surgeon import Operation, Penalty, Selector
from surgeon_adapt.fields import Scheduled, domains_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from surgeon import Surgery
    from surgeon.interfaces.training import Term
    from surgeon.training.penalties import Run

Sites = Selector | Annotated[list[Selector], Field(min_length=1)]


class Matching(Scheduled):
    """Hold the sites at which distributions are compared."""

    at: Sites | None = None
    """The site, or sites, whose features are compared; the distances of several sites are added up. Default: the
    features that the head reads."""

    @property
    def sites(self) -> list[Selector | None]:
        """The selectors, one for each site."""
        return list(self.at) if isinstance(self.at, list) else [self.at]

    def announce(self, surgery: Surgery, distance: str) -> None:
        """Look for the sites, and add a line about each to the plan."""
        for site in self.sites:
            features = surgery.features(site)
            surgery.note(f"training reduces the {distance} between domains at {features.site or 'the output'}")

    def term(self, run: Run, method: str, distance: Callable[[Tensor, Tensor], Tensor]) -> Term:
        """Return the term that adds ``distance`` at every site."""
        from surgeon_adapt.distances import mean_over_pairs

        domains_of(run, method)
        readers = [run.features(site) for site in self.sites]

        def term(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
            factor = self.weight * self.rise(run.progress())
            parts = [mean_over_pairs(read(batch).flatten(1), batch["domain"], distance) for read in readers]
            return factor * sum(parts[1:], parts[0])

        return term


class MMDFields(Matching):
    """Hold the keys of ``mmd``."""

    widths: list[PositiveFloat] = Field(default=[0.25, 0.5, 1.0, 2.0, 4.0], min_length=1)
    """The bandwidths of the Gaussian kernels, as factors of the median squared distance in the batch."""


class MMDTerm(MMDFields, Penalty):
    """Add the squared maximum mean discrepancy between domains."""

    def begin(self, run: Run) -> Term:
        """Read the features at the sites."""
        from functools import partial

        from surgeon_adapt.distances import squared_mmd

        return self.term(run, MMD.name, partial(squared_mmd, widths=self.widths))


class MMD(MMDFields, Operation):
    """Reduce the maximum mean discrepancy between the features of the domains in training.

    The discrepancy is the distance between the mean embeddings of two distributions in the space of a kernel, here a
    mean of Gaussian kernels (Gretton et al. 2012; for deep networks: Long et al. 2015). No label is used. Long et al.
    weigh the kernels by an optimisation of their own; here all have the same weight. A batch needs at least two
    samples of a domain to count it; several domains are compared in pairs.

    The structure of the network does not change, and the artifact holds nothing of the comparison.
    """

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Check that the sites exist; nothing is edited."""
        self.announce(surgery, "maximum mean discrepancy")
        return surgery.model

    def penalties(self) -> list[Penalty]:
        """Ask for the discrepancy."""
        return [MMDTerm(**dict(self))]


class CoralTerm(Matching, Penalty):
    """Add the distance between the covariances of domains."""

    def begin(self, run: Run) -> Term:
        """Read the features at the sites."""
        from surgeon_adapt.distances import coral

        return self.term(run, Coral.name, coral)


class Coral(Matching, Operation):
    """Reduce the distance between the covariances of the domains' features in training (Deep CORAL).

    The loss is ``‖C_s - C_t‖² / (4 d²)`` for features of width d (Sun & Saenko 2016, eq. 1). They take the outputs of
    the last layer: ``at: "@head"``. No label is used. A batch needs at least two samples of a domain to count it;
    several domains are compared in pairs.

    The structure of the network does not change, and the artifact holds nothing of the comparison.
    """

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Check that the sites exist; nothing is edited."""
        self.announce(surgery, "distance of covariances")
        return surgery.model

    def penalties(self) -> list[Penalty]:
        """Ask for the distance."""
        return [CoralTerm(**dict(self))]
