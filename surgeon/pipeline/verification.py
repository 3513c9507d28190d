"""Report what was checked of an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from surgeon.errors import counted
from surgeon.interfaces.html_table import html_report, html_table
from surgeon.pipeline.nonfinite import describe_nonfinite


@dataclass(frozen=True)
class Verification:
    """The result of :func:`surgeon.verify`.

    Attributes:
        tensors: How many tensors the artifact has; all of them fit the replayed network.
        kept: How many of them are byte-identical with the source's; None if no source was given.
        changed: Tensors that surgery kept and that differ from the source, because training changed them.
        frozen_changed: The frozen ones among ``changed``: there should be none.
        outputs: The outputs of a forward and their shapes; ``{}`` if the network could not be traced.
        digests: How many files match their recorded digest; 0 if none are recorded (surgeon 0.1.0).
        same_outputs: How many output tensors are, up to rounding, those of the network that was written.
        outputs_note: Why outputs were not compared; empty if they were.
        nonfinite: How many NaN and infinite values each tensor has that has any.
        signed: How many files the signature covers; 0 if it was not checked.
    """

    tensors: int
    kept: int | None
    changed: tuple[str, ...]
    frozen_changed: tuple[str, ...]
    outputs: dict[str, tuple[int, ...]]
    digests: int = 0
    same_outputs: int = 0
    outputs_note: str = ""
    nonfinite: Mapping[str, int] = field(default_factory=dict)
    signed: int = 0

    def facts(self, to_compare: str = "source=MODEL compares them") -> Iterator[tuple[str, str]]:
        """Yield what was checked, and the result.

        Args:
            to_compare: How the caller has kept tensors compared, where they were not.
        """
        yield "tensors", f"{self.tensors}, all used by the network"
        files = counted(self.digests, "file")
        recorded = f"{files} unchanged, by digest" if self.digests else "no digests recorded: made by surgeon 0.1.0"
        yield "bytes", recorded
        if self.kept is None:
            yield "kept", f"not compared; {to_compare}"
        else:
            yield "kept", f"{self.kept} byte-identical with the source's"
        if self.changed:
            few = ", ".join(self.changed[:3]) + (", …" if len(self.changed) > 3 else "")
            yield "trained", f"{len(self.changed)} differ from the source's, all trainable: {few}"
        if self.kept == 0 and self.changed:
            yield "warning", "no kept tensor is the source's: another source of the same shapes would pass, too"
        if self.nonfinite:
            yield "warning", describe_nonfinite(self.nonfinite)
        if self.outputs:
            shapes = (f"{name} ({' × '.join(map(str, sizes)) or 'scalar'})" for name, sizes in self.outputs.items())
            yield "outputs", ", ".join(shapes)
        tensors = "1 tensor is" if self.same_outputs == 1 else f"{self.same_outputs} tensors are"
        same = f"{tensors}, up to rounding, what the network gave when it was written"
        yield "forward", f"not compared: {self.outputs_note}" if self.outputs_note else same

    def _repr_html_(self) -> str:
        """Show what was checked as a table in a notebook."""
        signed = [f"all {self.signed} files are as they were signed"] if self.signed else []
        return html_report("the artifact matches its manifest", html_table(("", ""), self.facts()), notes=signed)
