"""Find modules by their addresses (sites) or by selectors, which may name several of them.

A selector is one or more terms, separated by commas; a term that begins with ``!`` excludes modules:

====================  ==========================================================================
``layer4.1.conv2``    one site
``features.*.conv``   ``*`` and ``?`` match within one name of the path
``**.attention``      ``**`` matches any number of names, also none
``{layer1,layer2}``   either name
``encoder.layer[-2:]``  children of a container by position, or a slice of them
``type:BatchNorm2d``  modules by class name, base classes included
``re:layer[12]\\..*``  sites that a regular expression matches from end to end
``@head``             modules by role; ``@blocks[3]``, ``@blocks[:4]`` by position in executed order
``.``                 the whole network
====================  ==========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from torch import nn

from surgeon.errors import SiteError, nearest
from surgeon.interfaces.composite import composite_of, has_part
from surgeon.nn.mixing import base_of

ROLES = ("stem", "embeddings", "blocks", "pool", "head", "aux", "norms")
"""The roles of modules; a recipe may name further roles."""

RoleSites = Callable[[str], list[str]]
"""Lists the sites in a role, in executed order."""


@dataclass(frozen=True)
class Site:
    """Hold a module and its address; the root's is the empty string."""

    name: str
    module: nn.Module

    def __str__(self) -> str:
        return self.name or "."


class Selects(Protocol):
    """A network whose sites can be selected: one that is inspected, or one under surgery."""

    def select(self, selector: str) -> list[Site]:
        """List the sites that ``selector`` names."""

    def role(self, name: str) -> Sequence[object]:
        """List the sites in a role."""


def other_heads(model: nn.Module) -> list[Site]:
    """List the heads of a composite other than the one with the role ``head``: those of its branches and towers."""
    return [Site(path, model.get_submodule(path)) for path in composite_of(model).heads if has_part(model, path)]


def select_with_heads(network: Selects, model: nn.Module, selector: str) -> list[Site]:
    """Select sites by ``network``, for recipe keys in which ``head`` means every head.

    A role may be written without its @ if no module of ``model`` has that name. ``head`` means the sites of the role
    and those of :func:`other_heads`.

    Raises:
        SiteError: The selector matches nothing.
    """
    if selector in ("head", "@head") and (more_heads := other_heads(model)):
        return [*(network.select("@head") if network.role("head") else []), *more_heads]
    if selector.isidentifier() and not hasattr(model, selector):
        try:
            return network.select(f"@{selector}")
        except SiteError:
            pass
    return network.select(selector)


def select(model: nn.Module, selector: str, roles: RoleSites | None = None) -> list[Site]:
    """List every site that ``selector`` names, in the order of the tree, without duplicates.

    Raises:
        SiteError: A term matches nothing, or is malformed. The error names the nearest sites.
    """
    modules = dict(model.named_modules())
    included: set[str] = set()
    excluded: set[str] = set()
    terms = split_terms(selector)
    if not terms:
        raise SiteError("an empty selector names no module")
    for term in terms:
        names = _match(model, modules, term.removeprefix("!").strip(), roles)
        if not any(name in modules for name in names):  # later names of shared modules
            first = {id(module): name for name, module in modules.items()}
            names = [first[id(model.get_submodule(name))] for name in names]
        (excluded if term.startswith("!") else included).update(names)
    if all(term.startswith("!") for term in terms):
        included = {name for name in modules if name}
    remaining = [Site(name, module) for name, module in modules.items() if name in included - excluded]
    if not remaining:
        raise SiteError(f"{selector!r} excludes everything that it names in {class_name(model)}")
    return remaining


def split_terms(selector: str) -> list[str]:
    """Split a selector at the commas outside brackets and braces; after ``re:`` the rest is one term."""
    terms: list[str] = []
    depth, current = 0, ""
    for position, character in enumerate(selector):
        if not current.strip() and selector[position:].lstrip().removeprefix("!").startswith("re:"):
            return [*terms, selector[position:].strip()]
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            terms.append(current.strip())
            current = ""
        else:
            current += character
    return [term for term in [*terms, current.strip()] if term]


def class_name(model: nn.Module) -> str:
    """Get the name of a network's class, for messages."""
    return type(model).__name__


def _match(model: nn.Module, modules: dict[str, nn.Module], term: str, roles: RoleSites | None) -> list[str]:
    if term == ".":
        return [""]
    if term.startswith("type:"):
        pattern = term[5:]
        matched = [n for n, m in modules.items() if any(fnmatchcase(c, pattern) for c in _class_names(m))]
        if not matched:
            classes = {type(m).__name__ for m in modules.values()}
            raise _nothing(model, term, [f"type:{name}" for name in classes])
        return matched
    if term.startswith("re:"):
        try:
            expression = re.compile(term[3:])
        except re.error as error:
            raise SiteError(f"{term!r} is not a valid regular expression: {error}") from None
        matched = [name for name in modules if name and expression.fullmatch(name)]
        if not matched:
            raise _nothing(model, term, [])
        return matched
    if term.startswith("@"):
        return _match_role(model, modules, term, roles)
    matched = [name for name in _walk(model, "", _segments(term)) if name]
    if not matched:
        raise _nothing(model, term, [name for name in modules if name])
    return matched


def _class_names(module: nn.Module) -> set[str]:
    """List the names of a module's class, of its bases, and of the class before surgeon mixed another into it."""
    cls = type(module)
    return {c.__name__ for c in (*cls.__mro__, *base_of(cls).__mro__)}


def _match_role(model: nn.Module, modules: dict[str, nn.Module], term: str, roles: RoleSites | None) -> list[str]:
    parsed = re.fullmatch(r"@(\w+)(\[[^\]]*\])?(?:\.(.+))?", term)
    if parsed is None or roles is None:
        raise SiteError(f"{term!r} is not a role", hint="roles look like @head, @blocks[3] or @blocks[-2:].attn")
    role, index, rest = parsed.groups()
    names = roles(role)
    if not names:
        advice = f"name the site itself, or set the role in the recipe with roles: {{{role}: SITE}}"
        near = [f"@{name}" for name in nearest(role, ROLES) if role not in ROLES]
        raise SiteError(
            f"{class_name(model)} has no module in the role @{role}",
            hint=f"nearest: {', '.join(near)}     {advice}" if near else advice,
        )
    if index:
        names = _pick(names, index, f"@{role}")
    if rest:
        below = [f"{name}.{sub}" for name in names for sub in _walk(modules[name], "", _segments(rest)) if sub]
        if not below:
            inside = [sub for name in names for sub, _ in modules[name].named_modules() if sub]
            raise _nothing(model, term, [f"@{role}{index or ''}.{sub}" for sub in inside])
        return below
    return names


def _segments(path: str) -> list[str]:
    """Split a path at its dots, except inside braces, and split an index from the name before it."""
    segments: list[str] = []
    for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^.\[{])+|\[[^\]]*\]", path):
        pieces = re.findall(r"(?:\{[^}]*\}|[^\[{])+|\[[^\]]*\]", part)
        segments.extend(pieces)
    return segments


def _walk(module: nn.Module, name: str, segments: list[str]) -> Iterator[str]:
    if not segments:
        yield name
        return
    head, rest = segments[0], segments[1:]
    children = {child: sub for child, sub in module._modules.items() if sub is not None}
    join = f"{name}.".lstrip(".")
    if head.startswith("["):
        if not children:
            return
        for child in _pick(list(children), head, name or "."):
            yield from _walk(children[child], join + child, rest)
    elif head == "**":
        yield from _walk(module, name, rest)
        for child, sub in children.items():
            yield from _walk(sub, join + child, segments)
    else:
        for child, sub in children.items():
            if any(fnmatchcase(child, pattern) for pattern in _alternatives(head)):
                yield from _walk(sub, join + child, rest)
        # {stem.conv,head.fc}: an alternative may be a path
        for path in _alternatives(head) if "." in head else ():
            yield from _walk(module, name, _segments(path) + rest)


def _alternatives(segment: str) -> list[str]:
    parsed = re.fullmatch(r"([^{]*)\{([^}]*)\}(.*)", segment)
    if parsed is None:
        return [segment]
    before, inside, after = parsed.groups()
    return [tail for option in inside.split(",") for tail in _alternatives(f"{before}{option.strip()}{after}")]


def _pick(names: list[str], index: str, container: str) -> list[str]:
    text = index[1:-1].strip()
    try:
        if ":" in text:
            parts = [int(part) if part.strip() else None for part in text.split(":")]
            return names[slice(*parts)]
        return [names[int(text)]]
    except (ValueError, TypeError):
        raise SiteError(f"[{text}] is not an index or slice", where=container) from None
    except IndexError:
        raise SiteError(f"[{text}] is out of range: {container} has {len(names)} ({names[0]} to {names[-1]})") from None


def _nothing(model: nn.Module, term: str, candidates: list[str]) -> SiteError:
    close = nearest(term, candidates)
    if not close:  # a long path with one wrong name is close to no whole path: compare last names
        last = term.rsplit(".", 1)[-1]
        close = [
            name for name in candidates if name.rsplit(".", 1)[-1] in nearest(last, {last_name(c) for c in candidates})
        ][:3]
    if not close:
        close = [name for name in candidates if "." not in name][:6]
    hint = f"nearest: {', '.join(close)}" if close else None
    return SiteError(f"no module matches {term!r} in {class_name(model)}", hint=hint)


def last_name(site: str) -> str:
    """Get the last name of a path: ``conv2`` for ``layer4.1.conv2``."""
    return site.rsplit(".", 1)[-1]
