"""Read torchvision networks with changes that tensors show.

People put another head on a network, give its first convolution other channels, or save it as
``nn.Sequential(*list(model.children())[:-1])``. The trunk is still identified by its digest, which covers every key and
shape. A head is rebuilt if its tensors determine its layers, and otherwise left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from torch import nn

from surgeon.architectures.fingerprints import MASK, Keys, Row, digest, is_twin, table, top_of
from surgeon.architectures.fit import COUNTER, shapes_of
from surgeon.interfaces.architecture import Shapes
from surgeon.interfaces.match import few

if TYPE_CHECKING:
    from surgeon.checkpoint.formats import Checkpoint

BEHIND = "behind"
"""The top-level name for modules after the network in a ``Sequential`` that contains both."""

COLOURS = 3
"""The input channels of torchvision's builders."""


@dataclass
class Trunk:
    """A network whose tensors, without its head, are all in a file."""

    row: Row
    naming: dict[str, str]
    """Name in the file → name in the network."""
    replaced: dict[str, Any] = field(default_factory=dict)
    """The first convolution, if it differs."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Head:
    """How to handle a file's head."""

    replaced: dict[str, Any] = field(default_factory=dict)
    """Path → layers, if the head can be rebuilt."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Name so far → name in the network."""
    left_out: set[str] = field(default_factory=set)
    """Names, so far, of tensors that cannot be rebuilt."""
    notes: list[str] = field(default_factory=list)


def trunks(checkpoint: Checkpoint) -> Iterator[Trunk]:
    """Find classifiers whose whole trunk ``checkpoint`` has, with any head and any number of input channels."""
    for naming, children, notes in _namings(checkpoint.entries):
        shapes = {naming[name]: shape for name, shape in shapes_of(checkpoint).items()}
        digests = Keys(shapes).digests
        changes = list(_first_convolutions(shapes))
        for row in table():
            names = row.children.split()
            if is_twin(row.name) or not row.heads or "backbone" in names or children not in (None, row.children):
                continue
            trunk = {key for key in digests if "." not in key or top_of(key) in set(names) - row.heads}
            if not _are_of_a_head({key: shapes[key] for key in digests if top_of(key) not in {*names, *trunk}}, trunk):
                continue
            total = sum(digests[key] for key in trunk) & MASK
            if total == row.body:
                yield Trunk(row, naming, notes=list(notes))
            for path, change, channels in changes:
                if f"{path}.weight" in trunk and (total + change) & MASK == row.body:
                    note = (
                        f"its first convolution {path} has {channels} input channels"
                        f"{' and a bias' if f'{path}.bias' in digests else ''}; "
                        "its stride and padding are assumed to be torchvision's"
                    )
                    layer = {path: ["Conv", channels, f"{path}.bias" in digests]}
                    yield Trunk(row, naming, layer, [*notes, note])


def _are_of_a_head(extra: Shapes, trunk: set[str]) -> bool:
    """Return whether tensors outside the network may be a head: linear layers and norms, fewer than the trunk's."""
    return len(extra) < len(trunk) and all(len(shape) <= 2 for shape in extra.values())


def _namings(names: Iterable[str]) -> Iterator[tuple[dict[str, str], str | None, list[str]]]:
    """Yield ways to read ``names``: unchanged, or by the order of a network's children; with notes."""
    names = list(names)
    yield {name: name for name in names}, None, []
    numbered = all(name.partition(".")[0].isdecimal() for name in names)
    if not numbered:
        return
    nested = {top_of(name) for name in names} == {"0", "1"} and all(
        name.split(".")[1].isdecimal() for name in names if name.startswith("0.")
    )
    for children in dict.fromkeys(row.children for row in table() if not is_twin(row.name)):
        ordered = children.split()
        yield _by_order(names, ordered), children, ["its numbered names are read by the order of the network's modules"]
        if nested:
            inner = _by_order([name[2:] for name in names if name.startswith("0.")], ordered)
            outer = {f"0.{name}": new for name, new in inner.items()}
            outer |= {name: f"{BEHIND}.{name}" for name in names if name.startswith("1.")}
            note = "its numbered names are read as a body (0), by the order of the network's modules, and a head (1)"
            yield outer, children, [note]


def _by_order(names: Iterable[str], children: list[str]) -> dict[str, str]:
    naming = {}
    for name in names:
        number, _, rest = name.partition(".")
        within = int(number) < len(children) and bool(rest)
        naming[name] = f"{children[int(number)]}.{rest}" if within else f"{BEHIND}.{name}"
    return naming


def _first_convolutions(shapes: Shapes) -> Iterator[tuple[str, int, int]]:
    """Yield convolutions that may be a first one with other channels, or with a bias that torchvision's lacks.

    Yields:
        The path, the change of the digest that makes it torchvision's, and the input channels.
    """
    for key, shape in shapes.items():
        path, _, kind = key.rpartition(".")
        if kind != "weight" or len(shape) < 4:
            continue
        stock = (shape[0], COLOURS, *shape[2:])
        change = digest(key, stock) - digest(key, shape)
        if shape != stock:
            yield path, change, shape[1]
        if (bias := shapes.get(f"{path}.bias")) is not None:
            yield path, change - digest(f"{path}.bias", bias), shape[1]


def read_head(skeleton: nn.Module, heads: set[str], shapes: Shapes, children: set[str]) -> Head:
    """Compare the head of a file with that of ``skeleton``, and decide how to handle it.

    Args:
        skeleton: The network as torchvision builds it.
        heads: The top-level modules with class-dependent tensors.
        shapes: The tensors of the file, by name in the network.
        children: The names of the network's top-level modules.
    """
    stock = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    head = Head()
    extra = {key for key in shapes if "." in key and top_of(key) not in children}
    for top in sorted(heads):
        expected = {key: shape for key, shape in stock.items() if top_of(key) == top and not COUNTER.search(key)}
        have = {key: shape for key, shape in shapes.items() if top_of(key) == top and not COUNTER.search(key)}
        differing = {key for key in expected.keys() | have.keys() if expected.get(key) != have.get(key)}
        if not differing or not have:
            continue
        place = _common([key.split(".")[:-1] for key in differing])
        inside = {key: shape for key, shape in shapes.items() if key.startswith(f"{place}.")}
        layers = _layers({key.removeprefix(f"{place}."): shape for key, shape in inside.items()})
        first = _first_linear(skeleton, place)
        if layers is not None and first is not None and _takes(layers, first.in_features):
            head.replaced[place] = layers
            head.notes.append(f"its head {place} is rebuilt as {_as_text(layers)}")
        else:
            head.left_out |= inside.keys()
            head.notes.append(_left_out(inside, place))
    if extra:
        _read_extra(skeleton, heads, {key: shapes[key] for key in extra}, shapes, head)
    return head


def _read_extra(skeleton: nn.Module, heads: set[str], extra: Shapes, shapes: Shapes, head: Head) -> None:
    """Use a linear layer of another name as the network's only one; leave anything else out."""
    linear = [name for name, module in skeleton.named_modules() if isinstance(module, nn.Linear)]
    linear = [name for name in linear if top_of(name) in heads]
    path = _common([key.split(".")[:-1] for key in extra])
    weight = extra.get(f"{path}.weight", ())
    is_absent = not any(top_of(key) in heads for key in shapes)
    is_linear = extra.keys() == {f"{path}.weight", f"{path}.bias"} and len(weight) == 2
    if is_linear and is_absent and len(heads) == len(linear) == 1:
        module = skeleton.get_submodule(linear[0])
        if module.in_features == weight[1]:
            head.renamed = {f"{path}.{kind}": f"{linear[0]}.{kind}" for kind in ("weight", "bias")}
            head.notes.append(f"{_in_file(path)} of the file is used as the head {linear[0]}")
            return
    head.left_out |= extra.keys()
    head.notes.append(_left_out(extra, path))


def _left_out(shapes: Shapes, place: str) -> str:
    sizes = {_in_file(key): "×".join(map(str, shape)) for key, shape in shapes.items() if len(shape) > 1}
    listed = few((f"{key} {size}" for key, size in sizes.items()), 4)
    return (
        f"its head{f' {_in_file(place)}' if place else ''} differs, and its tensors do not show all of its layers "
        f"({listed or few(shapes)}): left out; add a new one with replace_head, or give the architecture: "
        "--arch python:package.module:function"
    )


def _in_file(name: str) -> str:
    return name.removeprefix(f"{BEHIND}.")


def _common(paths: list[list[str]]) -> str:
    """Return the longest module path that all ``paths`` begin with."""
    shared = paths[0]
    for path in paths[1:]:
        shared = shared[: next((i for i in count() if shared[i : i + 1] != path[i : i + 1] or not path[i:]), 0)]
    return ".".join(shared)


def _layers(shapes: Shapes) -> list[Any] | None:
    """Return the layers that tensors belong to; None if they do not determine them.

    A gap in the numbers between two layers may be any activation, so it is ambiguous. A gap before the first layer is
    usually dropout, which does nothing in eval mode.
    """
    if set(shapes) <= {"weight", "bias"}:
        return _layer(shapes)
    numbered: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        number, _, rest = key.partition(".")
        numbered.setdefault(number, {})[rest] = shape
    if not all(number.isdecimal() for number in numbered):
        return None
    numbers = sorted(map(int, numbered))
    layers = [_layer(numbered[str(number)]) for number in numbers]
    if None in layers or numbers != list(range(numbers[0], numbers[-1] + 1)):
        return None
    return [*(["Dropout"] for _ in range(numbers[0])), *layers]


def _layer(shapes: Shapes) -> list[Any] | None:
    weight = shapes.get("weight", ())
    rest = {key for key in shapes if not COUNTER.search(key)} - {"weight", "bias"}
    if len(weight) == 2 and not rest:
        return ["Linear", weight[1], weight[0], "bias" in shapes]
    if len(weight) == 1 and rest == {"running_mean", "running_var"} and "bias" in shapes:
        return ["BatchNorm1d", weight[0]]
    return None


def _takes(layers: list[Any], width: int) -> bool:
    """Return whether the sizes of ``layers`` fit each other and a trunk of ``width`` features."""
    for layer in [layers] if isinstance(layers[0], str) else layers:
        if layer[0] != "Dropout" and layer[1] != width:
            return False
        width = layer[2] if layer[0] == "Linear" else width
    return True


def _first_linear(skeleton: nn.Module, place: str) -> nn.Linear | None:
    """Return the linear layer that the module at ``place`` begins with, after dropout; None if there is none."""
    try:
        modules = skeleton.get_submodule(place).modules()
    except AttributeError:
        return None
    with_tensors = (module for module in modules if not list(module.children()) and module.state_dict())
    first = next(with_tensors, None)
    return first if isinstance(first, nn.Linear) else None


def _as_text(layers: list[Any]) -> str:
    def shown(layer: list[Any]) -> str:
        name, *sizes = layer
        return f"{name}({', '.join(map(str, sizes[:2]))})"

    if isinstance(layers[0], str):
        return shown(layers)
    dropout = "; layers without tensors before it are assumed to be dropout" if layers[0] == ["Dropout"] else ""
    return f"Sequential({', '.join(map(shown, layers))}){dropout}"


def put_in(model: nn.Module, replaced: dict[str, Any]) -> None:
    """Insert the layers of the option ``replaced`` into a network.

    Raises:
        AttributeError: A path does not exist.
        KeyError: A layer's type is not supported.
    """
    for path, layers in replaced.items():
        parent, _, name = path.rpartition(".")
        stock = model.get_submodule(path)
        if isinstance(layers[0], str):
            new = _build_layer(layers, stock)
        else:
            new = nn.Sequential(*(_build_layer(layer, stock) for layer in layers))
        setattr(model.get_submodule(parent), name, new)


def _build_layer(layer: list[Any], stock: nn.Module) -> nn.Module:
    kind, *sizes = layer
    if kind == "Conv":
        channels, bias = sizes
        settings = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        options = {name: getattr(stock, name) for name in settings}
        convolution: nn.Module = type(stock)(channels, stock.out_channels, bias=bias, **options)
        return convolution
    if kind == "Linear":
        return nn.Linear(sizes[0], sizes[1], bias=sizes[2])
    layer_types: dict[str, type[nn.Module]] = {"Dropout": nn.Dropout, "BatchNorm1d": nn.BatchNorm1d}
    return layer_types[kind](*sizes)
