"""Declare facts about a family of networks: where its heads, blocks and pools are, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn


@dataclass(frozen=True)
class Family:
    """Facts about the networks of some classes.

    Paths are sites in which ``*`` and ``?`` match within one name; those that a network lacks are passed
    over. Whatever is left empty is found by evidence.

    Attributes:
        name: What to call it: ``torchvision ResNet``.
        classes: The dotted names of classes, ``torchvision.models.resnet.ResNet``, in which ``*`` matches
            anything. A subclass belongs to the family of its base.
        head: The final prediction layers whose width is the number of classes (or keypoints). Of a
            path and one below it, the one below counts.
        aux: Heads that only help training.
        stem: The first layer.
        blocks: The containers of block stacks, or the blocks themselves where they are no container's.
        pool: What turns a feature map or a sequence into one vector.
        shapes: The shape of each argument of the forward, without the batch.
        size: The attribute that holds the side of the square images that the network insists on.
        listed: The forward takes a list of images (and of targets, in training).
        settings: Attributes to set while tracing, by path: a detector's image size, for instance.
    """

    name: str
    classes: tuple[str, ...]
    head: tuple[str, ...] = ()
    aux: tuple[str, ...] = ()
    stem: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    size: str | None = None
    listed: bool = False
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def exact(self) -> bool:
        """Whether it names classes one by one, so that its facts need no second look."""
        return not any("*" in pattern for pattern in self.classes)

    def holds(self, model: nn.Module) -> bool:
        """Whether ``model``, or a base of its class, is one of the family's classes."""
        names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(model).__mro__]
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.classes)
