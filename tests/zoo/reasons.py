"""The reasons of failures, in a few sentences."""

from __future__ import annotations

import re

from surgeon.errors import SurgeonError

SENTENCES: tuple[tuple[str, str], ...] = (
    (r"requires the (\w[\w-]*) library|needs? the (\w[\w-]*) (?:library|package)", "needs the optional dependency {0}"),
    (r"module transformers has no attribute (\w+)", "transformers lists the class and does not export it"),
    (r"has no forward of its own", "a set of networks without a forward of its own"),
    (r"(it is not known what built the network before surgery)", "{0}"),
    (r"takes '\w*session'", "takes an object that its processor makes of a video, and no tensors"),
)
"""What an error's text matches, and the sentence for it."""

_PER_LAYER = "what words mean to each block lies in one tensor (embed_tokens_per_layer), which thinning does not slice"
WHY = {
    "transformers/gemma3n/Gemma3nModel": _PER_LAYER,
    "transformers/gemma3n_text/Gemma3nTextModel": _PER_LAYER,
    "transformers/gemma4/Gemma4Model": _PER_LAYER,
    "transformers/gemma4_text/Gemma4TextModel": _PER_LAYER,
    "transformers/zamba2/Zamba2Model": (
        "its blocks share their attention, which keeps what it adds for each of them under the number that it had"
    ),
    "transformers/lightglue/LightGlueForKeypointMatching": (
        "its features are as wide as there are points in the pictures, so that no layer of one width fits them"
    ),
    "transformers/omdet-turbo/OmDetTurboForObjectDetection": (
        "its decoder starts from boxes that it takes off the graph, so that little of a column gets a gradient"
    ),
    "transformers/rwkv/RwkvModel": (
        "its first forward in eval mode divides its weights by powers of two, so that what has run is no longer what "
        "its config builds: operate on it before it runs, or on its file"
    ),
    "transformers/xcodec/XcodecModel": (
        "it runs its first half again on a padded sound where lengths do not fit, so that a forward that ends there "
        "would give features of another length"
    ),
}
"""What lies behind a failure, where the error does not say it."""


def reason_of(error: Exception) -> str:
    """One line for an error: a sentence of the list, or its own words."""
    text = str(error) if isinstance(error, SurgeonError) else f"{type(error).__name__}: {error}"
    for pattern, sentence in SENTENCES:
        if match := re.search(pattern, text):
            return sentence.format(*[group for group in match.groups() if group])
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return first if len(first) <= 300 else f"{first[:297]}…"
