"""Declare facts about a family of networks: where its heads, blocks and pools are, its inputs, its config fields.

The built-in tables (``surgeon.families``) and plugins use the same words. Whatever a declaration leaves empty, surgeon
works out from the module tree and a traced forward pass. This module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class BlockFields:
    """Name the config fields that speak of the blocks of a stack.

    Field names may contain ``*`` and ``?``. A field counts only if its value fits: a number that equals the number of
    blocks, a list with an entry for each. So one declaration serves a whole library.

    Attributes:
        container: The stacks that this is about, by the site of their container: ``encoder.blocks``, ``*``.
        counts: The number of blocks (``num_hidden_layers``).
        depths: A list with the number of blocks of each stage (``depths``).
        entries: A list with an entry for each block (``layer_types``, ``attention_window``).
        cycles: A list that is repeated until every block has an entry (``block_types``).
        kinds: Where the kind of each block stands, as a field or as a property computed from other fields.
        attends: The kinds from whose cache a decoder takes the length of the text; ``!`` excludes.
        positions: A list of the positions of some blocks (``full_attn_idxs``). Removed blocks are removed from it.
        features: Like ``positions``, of blocks whose outputs other parts read. Those blocks have to stay.
        states: Like ``features``, but counted in ``hidden_states``: 0 is the input of the first block, negative
            numbers count from the end.
        first: How many of the first blocks are of another kind (``first_k_dense_replace``).
        last: How many of the last blocks are of another kind (``num_kv_shared_layers``).
        sharing: A list with an entry for each block: ``store`` if it stores its keys and values, ``reuse`` if it reads
            those of the last block of its kind that does.
    """

    container: str = "*"
    counts: tuple[str, ...] = ()
    depths: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    cycles: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    attends: tuple[str, ...] = ("*attention*",)
    positions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    sharing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConfigFields:
    """Name the fields of the config that a network carries, so that operations keep it true.

    Attributes:
        attribute: Where the network keeps its config; empty where its settings are attributes of the network itself.
        parts: Fields that hold the config of a part (an image tower); patterns.
        blocks: The fields that speak of blocks; the first one whose ``container`` matches counts.
        class_count: The number of classes.
        class_names: The names of the classes: a list, or a mapping from number to name.
        class_numbers: A mapping from a class's name to its number.
        problem_type: The kind of labels: single-label, multi-label, regression.
        channels: The number of channels of an image.
        image_size: The side of a square image, or a pair of sides.
        patch_size: The side of a patch, which has to divide the side of the image.
        token_count: The number of position embeddings.
        tied: Whether the output layer shares the weight of the embedding.
        block_parameters: Parameters with a row for each block after one for the stem, by the ends of their names
            (``layer_weights``, the weights of a learned sum of hidden states).
    """

    attribute: str = "config"
    parts: tuple[str, ...] = ()
    blocks: tuple[BlockFields, ...] = ()
    class_count: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    class_numbers: tuple[str, ...] = ()
    problem_type: str | None = None
    channels: tuple[str, ...] = ()
    image_size: tuple[str, ...] = ()
    patch_size: tuple[str, ...] = ()
    token_count: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    block_parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    """Describe a tensor that a forward takes.

    ``shape``, ``low`` and ``high`` are expressions: dimensions are separated by spaces; each is a product (``*``), a
    quotient (``//``) or a sum (``+``) of numbers, of names that surgeon gives (``batch``, ``tokens``, ``height``,
    ``width``, …) and of config fields. ``hidden_size|d_model|64`` is the first that the config has, or 64. Where
    nothing gives a dimension a value, the argument does not apply.

    Attributes:
        name: The name of the argument.
        shape: ``batch tokens hidden_size|d_model``.
        dtype: ``float`` is the network's own floating-point type.
        low: The least value of an integer.
        high: One more than the greatest value of an integer.
        where: An expression that must have a value, other than 0, for the argument to apply.
        first: How many entries of a row have a value of their own, and that value: ``1 image_count``.
        last: The value of the last entry of a row.
    """

    name: str
    shape: str
    dtype: Literal["float", "int64", "bool"] = "float"
    low: str = "0"
    high: str = "2"
    where: str = ""
    first: str = ""
    last: str = ""


@dataclass(frozen=True)
class Family:
    """Facts about the networks of some classes.

    A plugin returns them from ``surgeon_families``. For a network that keeps its settings in ``self.cfg``::

        Family(
            "lab ViT",
            classes=("lab.vit.ViT",),
            head=("head",),
            blocks=("layers",),
            positions=("positions",),
            inputs=(Argument("images", "batch channels height width"),),
            config=ConfigFields(
                attribute="cfg",
                blocks=(BlockFields(counts=("depth",), entries=("drop_rates",), positions=("global_layers",)),),
                class_count=("classes",),
                class_names=("names",),
                channels=("channels",),
                image_size=("side",),
                patch_size=("patch",),
            ),
        )

    Then ``truncate`` keeps ``cfg.depth`` and ``cfg.drop_rates`` true, ``replace_head`` ``cfg.classes``, and
    ``adapt_input`` interpolates ``positions`` for another ``cfg.side``.

    Paths are sites in which ``*`` and ``?`` match within one name; paths that a network lacks are passed over.

    Attributes:
        name: What to call it: ``torchvision ResNet``.
        classes: The dotted names of classes, ``torchvision.models.resnet.ResNet``, in which ``*`` matches
            anything. A subclass belongs to the family of its base.
        head: The final prediction layers whose width is the number of classes (or keypoints). Of a
            path and one below it, the one below counts.
        aux: Heads that only help training.
        stem: The first layer.
        blocks: The containers of block stacks, or the blocks themselves if they are not in a container.
        pool: The layer that pools a feature map or a sequence into one vector.
        shapes: The shape of each positional argument of the forward, without the batch.
        inputs: The keyword arguments of the forward, where shapes depend on the config.
        size: The attribute that holds the size of the images that the network insists on: a side, or a shape that ends
            in height and width. Several are tried in order; each may be a path through modules and mappings
            (``patch_embed.img_size``).
        positions: Learned position embeddings of a square grid of patches, ``(…, tokens, width)``, as paths of
            parameters; other image sizes interpolate them.
        listed: The forward takes a list of images (and of targets, in training).
        settings: Attributes to set while tracing, by path: a detector's image size, for instance.
        config: The fields of the config that its networks carry.
        counted_by: The config fields with the width of the head, if that is not the number of classes (``vocab_size``
            of a CTC head).
    """

    name: str
    classes: tuple[str, ...]
    head: tuple[str, ...] = ()
    aux: tuple[str, ...] = ()
    stem: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    inputs: tuple[Argument, ...] = ()
    size: str | tuple[str, ...] | None = None
    positions: tuple[str, ...] = ()
    listed: bool = False
    settings: tuple[tuple[str, object], ...] = ()
    config: ConfigFields | None = None
    counted_by: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Return whether it names classes one by one, so that its facts need no confirmation."""
        return not any("*" in pattern for pattern in self.classes)

    def holds(self, model: nn.Module) -> bool:
        """Return whether ``model``, or a base of its class, is one of the family's classes."""
        return self.covers(type(model))

    def covers(self, cls: type) -> bool:
        """Return whether ``cls``, or a base of it, is one of the family's classes."""
        names = [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.classes)
