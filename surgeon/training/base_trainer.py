"""Adapt the transformers Trainer: data loaders, guards, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from surgeon.training.checkpoints import EXTRA, load_network, save_network
from surgeon.training.finite import FiniteGuard


class BaseTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that evaluates every test sample, stops at non-finite values, and saves networks of any kind."""

    guard: FiniteGuard

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return tensors beside the network to save in a checkpoint; loading one changes them in place."""
        return {}

    # ---- data

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return a loader of every test sample: ``dataloader_drop_last`` is for training only."""
        with self._all_samples():
            return super().get_eval_dataloader(eval_dataset)  # type: ignore[no-any-return]

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Return a loader of every sample, as :meth:`get_eval_dataloader` does."""
        with self._all_samples():
            return super().get_test_dataloader(test_dataset)  # type: ignore[no-any-return]

    @contextmanager
    def _all_samples(self) -> Iterator[None]:
        drop, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = drop

    # ---- gradients: keep the norm that the Trainer computes, for the guard

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        self.guard.norm = super()._clip_grad_norm(model)
        return self.guard.norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        self.guard.norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return self.guard.norm

    # ---- checkpoints: transformers would rename tensors, lose tied ones, and accept missing ones on loading

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        if state_dict is None:
            self.guard.check_weights(self.state)
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_network(self.accelerator.unwrap_model(self.model), folder, state_dict)
        if extra := self.extra_tensors():
            save_file({name: tensor.detach().contiguous() for name, tensor in extra.items()}, folder / EXTRA)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_network(self.accelerator.unwrap_model(self.model), Path(resume_from_checkpoint))
        self._load_extra(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            load_network(self.accelerator.unwrap_model(self.model), Path(self.state.best_model_checkpoint))
            self._load_extra(Path(self.state.best_model_checkpoint))

    def _load_extra(self, folder: Path) -> None:
        if extra := self.extra_tensors():
            stored = load_file(folder / EXTRA)
            with torch.no_grad():
                for name, tensor in extra.items():
                    tensor.copy_(stored[name])
