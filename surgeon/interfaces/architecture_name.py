"""Name what builds a network: a provider's scheme, a name and the builder's options."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Architecture(BaseModel):
    """Name what builds a network: the scheme of a provider, a name, and the builder's options.

    ``torchvision/resnet50`` is ``Architecture(scheme="torchvision", name="resnet50")``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: str
    name: str
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments; JSON-able.")

    def __str__(self) -> str:
        separator = ":" if self.scheme == "python" else "/"
        return f"{self.scheme}{separator}{self.name}"
