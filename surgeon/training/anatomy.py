"""Which parameters of a network a selector names, which are its head's, and how deep each lies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torch import nn

from surgeon.errors import SiteError, TrainingError
from surgeon.graph.sites import Site, other_heads
from surgeon.interfaces.record import record_of
from surgeon.surgery.inspection import Inspection, inspection_of

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


class Anatomy:
    """What training must know of where parameters lie in a network.

    Args:
        model: The network; its record, where surgeon made it, says what its roles and inputs are.
        plugins: Whose families of networks are known; the built-in and installed ones if left out.
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
        """Whether the network has blocks for rates to go by."""
        return bool(self._inspection.role("blocks"))

    @cached_property
    def kept(self) -> set[str]:
        """The parameters that came from the source; all of them for a network that surgeon did not make."""
        names = {name for name, _ in self._model.named_parameters()}
        return names if self._surgery is None else names & self._surgery.kept.keys()

    @cached_property
    def inherited(self) -> set[str]:
        """Like :attr:`kept`, with the parameters that an operation derived from the source's or a donor's values."""
        if self._surgery is None:
            return self.kept
        return self.kept | ({name for name, _ in self._model.named_parameters()} & set(self._surgery.derived))

    def sites(self, selectors: Sequence[str]) -> list[Site]:
        """What ``selectors`` name; ``head`` alone means the role, and the heads of branches.

        Raises:
            SiteError: One names nothing.
        """
        return [site for selector in selectors for site in self._select(selector)]

    def parameters(self, selectors: Sequence[str]) -> set[str]:
        """The names of the parameters at and below what ``selectors`` name.

        Raises:
            SiteError: One names nothing.
        """
        ids = {id(p) for site in self.sites(selectors) for p in site.module.parameters()}
        return {name for name, parameter in self._model.named_parameters() if id(parameter) in ids}

    def depths(self) -> tuple[dict[str, int], int]:
        """How many blocks lie before each parameter, by its name, and the depth of what comes after the last.

        The stem and the embeddings lie at 0, the first block at 1, and the head behind the last block.

        Raises:
            TrainingError: No blocks are found.
        """
        blocks = self._inspection.role("blocks")
        if not blocks:
            raise TrainingError(
                f"layer_decay goes by the blocks, and none are found in {type(self._model).__name__}",
                where="train.optimizer.layer_decay",
                hint="say which they are with roles: {blocks: SITES}, or give rates: {SITES: FACTOR}",
            )
        last = len(blocks) + 1
        depths: dict[str, int] = {}
        begun = False
        for name, _ in self._model.named_parameters():
            inside = [index for index, block in enumerate(blocks, start=1) if name.startswith(f"{block}.")]
            begun = begun or bool(inside)
            depths[name] = inside[-1] if inside else last if begun else 0
        return depths, last

    def _select(self, selector: str) -> list[Site]:
        inspection = self._inspection
        if selector in ("head", "@head") and (others := other_heads(self._model)):
            own = inspection.select("@head") if inspection.role("head") else []
            return [*own, *others]
        if selector.isidentifier() and not hasattr(self._model, selector):
            try:
                return inspection.select(f"@{selector}")
            except SiteError:
                pass
        return inspection.select(selector)
