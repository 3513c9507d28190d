"""Compare an artifact's files, recipe and tensors with its manifest."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from surgeon.architectures.source import Source
from surgeon.checkpoint.artifact_files import RECIPE
from surgeon.checkpoint.digests import HINT, Integrity, check_files
from surgeon.errors import VerificationError
from surgeon.graph.tensors import tensors_of
from surgeon.pipeline.manifest import recipe_of
from surgeon.pipeline.reference_outputs import KEY, Comparison, compare_outputs
from surgeon.surgery.replay import made_with


def verify_bytes(source: Source) -> Integrity:
    """Compare every byte of an artifact with the recorded digests, and its recipe with the manifest.

    Returns:
        How many files were compared; 0 for an artifact of surgeon 0.1.0, which has no digests, and for a path that is
        not an artifact.

    Raises:
        VerificationError: A file has changed since it was written.
    """
    checkpoint = source.checkpoint
    if checkpoint is None or checkpoint.manifest is None or source.record is None:
        return Integrity()
    if checkpoint.folder is not None and source.surgeries and source.surgeries[-1].text:
        recipe = checkpoint.folder / RECIPE
        if not recipe.is_file() or recipe.read_bytes() != recipe_of(source.record).encode():
            problem = (
                "is not the recipe that the manifest holds" if recipe.is_file() else "is missing from the artifact"
            )
            raise VerificationError(problem, where=str(recipe), hint=HINT)
    return check_files(checkpoint.manifest, checkpoint.files, checkpoint.folder, all_bytes=True)


def compare_with_manifest(model: nn.Module, source: Source) -> None:
    """Compare the tensors and frozen parameters of the replayed network with those in the manifest.

    Raises:
        VerificationError: They differ.
    """
    manifest = (source.checkpoint.manifest if source.checkpoint else None) or {}
    last = source.surgeries[-1]
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    names = {name for name, _ in tensors_of(model)}
    for kind, replayed, listed in (
        ("tensors", names, {*last.kept, *last.made} or names),
        ("frozen parameters", frozen, set(manifest.get("frozen", frozen))),
    ):
        if differing := sorted(replayed ^ listed):
            raise VerificationError(
                f"the replayed operations give other {kind} than the manifest lists: {', '.join(differing[:3])}",
                where=source.location,
                hint="it was changed, or made by another version of surgeon: make it again from its recipe",
            )


def compare_with_recorded_outputs(load: Callable[[], nn.Module], source: Source) -> Comparison:
    """Run the network, if its outputs were recorded, and compare them.

    Args:
        load: Loads the network with its values.
        source: The artifact.

    Raises:
        VerificationError: They differ.
    """
    recorded = ((source.checkpoint.manifest if source.checkpoint else None) or {}).get(KEY)
    if recorded is None:
        return Comparison(note="not recorded when it was written")
    compared = compare_outputs(load(), recorded, source.location)
    if compared.different:
        shares = [f"{name} by {100 * far:.2g} %" if far < 10 else name for name, far in compared.different.items()]
        raise VerificationError(
            f"its bytes are as written, and the network gives other outputs than then: {', '.join(shares[:3])}, where "
            f"{100 * recorded['tolerance']:.2g} % is rounding",
            where=source.location,
            hint=made_with(source),
        )
    return compared
