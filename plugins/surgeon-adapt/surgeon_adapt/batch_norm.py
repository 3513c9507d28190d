"""domain_batch_norm and keep_domain: a BatchNorm for each domain, and back to the one of a single domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from surgeon import Operation, OperationError, Selector
from surgeon_adapt.fields import Name

if TYPE_CHECKING:
    from torch import nn

    from surgeon import Surgery


class DomainBatchNorm(Operation):
    """Give each domain statistics of its own in every BatchNorm.

    In training, samples of a domain are normalised in a batch of that domain, and running statistics follow it. With
    ``affine: shared`` the domains differ in statistics only, as in adaptive batch normalisation (Li et al. 2016), so
    that what is learnt from labels of the source holds for the target; with ``affine: own`` in scale and shift too
    (Chang et al. 2019), which needs a term that trains those of the target. All start as copies of the trained norm.

    Outside of training, in predictions, evaluations and metrics of the training itself, every sample is normalised by
    the statistics of one domain, ``predict``. The artifact records it. ``keep_domain`` makes plain norms of one domain
    again, of this one or of another.

    The data name their domains, ``train.data: [{…, domain: plain}, {…, domain: photo, labels: hidden}]``; leave
    ``domain_bn`` at ``mixed``.
    """

    domains: Annotated[list[Name], Field(min_length=2)]
    """The names of the domains in the data, the target last."""
    predict: Name
    """The domain whose statistics are used outside of training. Default: the last of domains, the target."""
    affine: Literal["shared", "own"] = "shared"
    """shared: one scale and shift for all domains; own: one for each."""
    at: Selector | Annotated[list[Selector], Field(min_length=1)] | None = None
    """Norms, or modules whose norms are meant. Default: every BatchNorm."""

    @model_validator(mode="before")
    @classmethod
    def _target_by_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("predict") is None:
            domains = values.get("domains")
            last = domains[-1] if isinstance(domains, (list, tuple)) and domains else "?"
            return {**values, "predict": last}
        return values

    @model_validator(mode="after")
    def _names(self) -> DomainBatchNorm:
        if len(set(self.domains)) < len(self.domains):
            raise ValueError("domains: a name is there twice")
        if self.predict not in self.domains:
            raise ValueError(f"predict: {self.predict!r} is none of the domains: {', '.join(self.domains)}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Replace the norms; see :class:`Operation`."""
        from surgeon_adapt.domain_norm import DomainNorm

        sites = self._norms(surgery)
        for site in sites:
            norm = surgery.model.get_submodule(site)
            twins = [self._twin(surgery, norm) for _ in self.domains[1:]]
            surgery.replace(site, DomainNorm([norm, *twins], self.domains, self.predict))
        surgery.note(f"outside of training, {len(sites)} norms use the statistics of {self.predict}")
        return surgery.model

    def _norms(self, surgery: Surgery) -> list[str]:
        from torch import nn
        from torch.nn.modules.batchnorm import _BatchNorm

        from surgeon_adapt.domain_norm import DomainNorm

        model = surgery.model
        if already := [name for name, module in model.named_modules() if isinstance(module, DomainNorm)]:
            raise OperationError(f"{already[0]} has norms by domain already", hint="keep_domain makes one of them")
        selectors = [self.at] if isinstance(self.at, str) else self.at
        chosen = [site.name for site in surgery.select(selectors)] if selectors else [""]
        norms = {
            name: module
            for name, module in model.named_modules(remove_duplicate=False)
            if isinstance(module, _BatchNorm) and any(not site or f"{name}.".startswith(f"{site}.") for site in chosen)
        }
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        for name, module in norms.items():
            if type(module) not in kinds or module.running_mean is None:
                raise OperationError(
                    f"{name} is a {type(module).__name__}"
                    + (" without running statistics" if module.running_mean is None else "")
                    + ", of which domains cannot have one each",
                    hint="name others with at:",
                )
        if not norms:
            raise OperationError("there is no BatchNorm whose statistics follow the data", hint="name others with at:")
        if len({id(module) for module in norms.values()}) < len(norms):
            raise OperationError("two names stand for one BatchNorm", hint="name others with at:")
        return list(norms)

    def _twin(self, surgery: Surgery, norm: Any) -> Any:
        twin: Any = surgery.new(
            type(norm), norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=norm.affine, like=norm
        )
        state = norm.state_dict(keep_vars=True)
        for name, tensor in twin.state_dict(keep_vars=True).items():
            if name in norm._parameters and self.affine == "shared":
                setattr(twin, name, state[name])
            else:
                surgery.copy_origin(tensor, state[name])
                tensor.requires_grad_(state[name].requires_grad)
        return twin


class KeepDomain(Operation):
    """Put the BatchNorm of one domain in the place of norms by domain; the others are dropped.

    The network computes for that domain what it computed before, and has the modules that it had before
    ``domain_batch_norm``: a stock class is a stock class again.
    """

    domain: Name | None = None
    """The domain. Default: the one that the norms use outside of training."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Replace the norms by domain; see :class:`Operation`."""
        from surgeon_adapt.domain_norm import DomainNorm

        norms = {name: module for name, module in model.named_modules() if isinstance(module, DomainNorm)}
        if not norms:
            raise OperationError("there are no norms by domain", hint="domain_batch_norm makes them")
        for name, module in norms.items():
            domain = self.domain or module.predict
            if domain not in module.domains:
                raise OperationError(
                    f"{name} has no domain {domain!r}", hint=f"the domains are: {', '.join(module.domains)}"
                )
            surgery.replace(name, module.norm_of(domain))
        surgery.note(f"{len(norms)} norms have the statistics of {self.domain or module.predict}")
        return surgery.model
