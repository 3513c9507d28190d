"""Describe a network made of several networks: where its inputs enter and which part the roles refer to.

A composite module defines ``surgeon_composite()``, which returns a :class:`Composite`. Then surgery, traces and
training work on it. surgeon's own columns, stems and branches do the same::

    class TwoTowers(nn.Module):
        def surgeon_composite(self) -> surgeon.Composite:
            return surgeon.Composite(
                root="vision",
                entries=(
                    surgeon.Entry("vision", {"image": "pixel_values"}),
                    surgeon.Entry("text", {"words": "input_ids"}),
                ),
            )

        def forward(self, image, words): ...

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgeon.errors import PluginError

if TYPE_CHECKING:
    from torch import nn

    from surgeon.interfaces.architecture_name import Architecture

METHOD = "surgeon_composite"


@dataclass(frozen=True)
class Entry:
    """Describe a part of a composite that inputs of the whole network enter.

    Attributes:
        site: The path of the part.
        arguments: For each argument of the composite's forward that the part receives, what the part's own forward
            calls it. None if the composite passes all of its arguments on as they are.
        architecture: What builds the part, where that is known.
    """

    site: str
    arguments: Mapping[str, str] | None = None
    architecture: Architecture | None = None


@dataclass(frozen=True)
class Composite:
    """Facts about a composite. Each has a default that is right for an ordinary network.

    All paths are relative to the composite. Those that it lacks, because surgery removed the part, are passed over.

    Attributes:
        root: The part that the roles (``@head``, ``@blocks``) refer to: the one that surgery is about. Empty for the
            whole network.
        entries: The parts that the inputs enter. Empty to find the inputs from the network's family, config or first
            layer.
        keywords: Keyword arguments of the forward that its signature does not show, because a pre-hook or
            ``**kwargs`` receives them.
        choices: Parts of which a forward runs only some. A trace counts all of them as used where the composite runs.
        heads: Parts that ``head`` means in addition to the head of ``root``, for freezing and learning rates.
        lone_output: What a training objective calls the output where the forward returns a single tensor.
        built: The part that the checkpoint's architecture builds; ``reinit`` draws its tensors. Empty for the whole
            network.
        architecture: What builds that part, where it is not the checkpoint's architecture.
    """

    root: str = ""
    entries: tuple[Entry, ...] = ()
    keywords: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    lone_output: str | None = None
    built: str = ""
    architecture: Architecture | None = None

    @property
    def shared(self) -> tuple[Entry, ...]:
        """The entries that receive all arguments of the forward as they are."""
        return tuple(entry for entry in self.entries if entry.arguments is None)


ORDINARY = Composite()
"""The facts of a network that is not a composite."""


def composite_of(model: nn.Module) -> Composite:
    """Get the facts of ``model`` as a composite; :data:`ORDINARY` if its class does not define the method.

    The method is looked up on the class, as Python does with special methods: a module that forwards unknown attributes
    to one of its parts must not return the facts of that part.

    Raises:
        PluginError: ``surgeon_composite()`` does not return a :class:`Composite`.
    """
    method = getattr(type(model), METHOD, None)
    if method is None:
        return ORDINARY
    facts = method(model)
    if not isinstance(facts, Composite):
        name = type(model).__name__
        raise PluginError(
            f"{name}.{METHOD}() returns a {type(facts).__name__} instead of a Composite",
            hint="return surgeon.Composite(root=…, entries=(…)) from it",
        )
    return facts


def root_of(model: nn.Module) -> str:
    """Return the path of the part that the roles of ``model`` refer to; empty for all of it."""
    root = composite_of(model).root
    return root if has_part(model, root) else ""


def has_part(model: nn.Module, path: str) -> bool:
    """Check whether ``model`` has a module at ``path``."""
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True
