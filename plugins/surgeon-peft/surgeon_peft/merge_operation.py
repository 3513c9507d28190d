"""merge_adapters: compute the weights that a network has with its adapter, and take the adapter out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgeon import Operation, OperationError

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


class MergeAdapters(Operation):
    """Merge the adapter into the weights, so that the network needs neither peft nor this plugin.

    peft merges one layer at a time, when its weights are written: no more than that layer is in memory. Modules that
    were saved in full take the place of the original ones. A method that cannot be merged, or whose merged layer
    computes something else than the adapted one, is refused. What was frozen stays frozen.
    """

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Put the base's layers back, with merged weights."""
        from surgeon_peft.injection import layers_of
        from surgeon_peft.merging import merge_layer

        layers = list(layers_of(surgery.model))
        if not layers:
            raise OperationError(
                "the network has no adapter of peft", hint="give the model as peft:FOLDER, or an artifact with one"
            )
        probed: set[str] = set()
        for site, layer in layers:
            merge_layer(surgery, site, layer, probed)
        with surgery.bookkeeping():
            if hasattr(surgery.model, "peft_config"):
                del surgery.model.peft_config
        surgery.note(f"the adapter is merged into {len(layers)} modules")
        return surgery.model
