"""Find parameters by selector, the parameters of the head, and the depth of each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torch import nn

from surgeon.errors import TrainingError
from surgeon.graph.sites import Site, select_with_heads
from surgeon.interfaces.record import record_of
from surgeon.surgery.features import Features, features_at, features_of_head
from surgeon.surgery.inspection import Inspection, inspection_of

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


class Anatomy:
    """Find parameters by selector, depth and origin.

    Args:
        model: The network; if surgeon made it, its record has its roles and inputs.
        plugins: The plugins that declare families. Default: the built-in and installed ones.
    """

    def __init__(self, model: nn.Module, plugins: Plugins | None) -> None:
        self._model = model
        self._plugins = plugins
        record = record_of(model)
        self._surgery = record.surgeries[-1] if record and record.surgeries else None

    @cached_property
    def _inspection(self) -> Inspection:
        from surgeon.plugins import load

        return inspection_of(self._model, self._plugins or load(), [self._surgery] if self._surgery else [])

    @property
    def has_blocks(self) -> bool:
        """Whether the network has blocks."""
        return bool(self._inspection.role("blocks"))

    @cached_property
    def kept(self) -> set[str]:
        """The parameters that came from the source; all of them for a network that surgeon did not make."""
        names = {name for name, _ in self._model.named_parameters()}
        return names if self._surgery is None else names & self._surgery.kept.keys()

    @cached_property
    def inherited(self) -> set[str]:
        """The parameters in :attr:`kept`, and those derived from values of the source or a donor."""
        if self._surgery is None:
            return self.kept
        return self.kept | ({name for name, _ in self._model.named_parameters()} & set(self._surgery.derived))

    def sites(self, selectors: Sequence[str]) -> list[Site]:
        """Return the sites that ``selectors`` match; ``head`` alone means the role and the heads of branches.

        Raises:
            SiteError: A selector matches nothing.
        """
        return [site for selector in selectors for site in select_with_heads(self._inspection, self._model, selector)]

    def parameters(self, selectors: Sequence[str]) -> set[str]:
        """Return the names of the parameters at and below the sites that ``selectors`` match.

        Raises:
            SiteError: A selector matches nothing.
        """
        ids = {id(p) for site in self.sites(selectors) for p in site.module.parameters()}
        return {name for name, parameter in self._model.named_parameters() if id(parameter) in ids}

    def features(self, at: str | None = None) -> Features:
        """Describe the features of a site. Default: those that the head reads.

        Raises:
            OperationError: The site does not produce features, or the head has several parts.
            SiteError: ``at`` names no site, or several.
        """
        inspection = self._inspection
        return features_of_head(inspection) if at is None else features_at(inspection, inspection.site(at).name)

    def depths(self) -> tuple[dict[str, int], int]:
        """Return the depth of each parameter by name, and the depth after the last block.

        The stem and the embeddings have depth 0, the first block 1, and the head comes after the last block.

        Raises:
            TrainingError: The network has no blocks.
        """
        blocks = self._inspection.role("blocks")
        if not blocks:
            raise TrainingError(
                f"layer_decay needs blocks, and {type(self._model).__name__} has none that surgeon recognises",
                where="train.optimizer.layer_decay",
                hint="give them in roles: {blocks: SITES}, or give rates: {SITES: FACTOR}",
            )
        last = len(blocks) + 1
        depths: dict[str, int] = {}
        begun = False
        for name, _ in self._model.named_parameters():
            inside = [index for index, block in enumerate(blocks, start=1) if name.startswith(f"{block}.")]
            begun = begun or bool(inside)
            depths[name] = inside[-1] if inside else last if begun else 0
        return depths, last
