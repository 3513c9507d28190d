"""Convert any picture that PIL opens to 8 bits, grey or colour, upright."""

from __future__ import annotations

from typing import Any

WHITE = (255, 255, 255, 255)
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
"""PIL's modes with 16 bits."""


def decode_picture(picture: Any, channels: int) -> Any:
    """Convert an opened picture to the mode for a network with ``channels`` channels.

    EXIF rotation is applied. 16 bits are scaled to 8 by their range, and so are floats from 0 to 1. Transparent parts
    become white. Palettes are looked up, and a grey picture is repeated for a colour network.

    Args:
        picture: A PIL picture.
        channels: 1 or 3.

    Raises:
        ValueError: The range of its values is unknown, or the network has another number of channels.
    """
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise ValueError(f"the network takes {channels} channels, and pictures have 1 or 3")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in SIXTEEN or picture.mode in ("I", "F"):
        picture = _in_8_bits(picture)
    if picture.mode in ALPHA or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture)
    return picture.convert("L" if channels == 1 else "RGB")


def _in_8_bits(picture: Any) -> Any:
    import numpy as np
    from PIL import Image

    values = np.asarray(picture).astype(np.float64)
    if picture.mode in SIXTEEN or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        top = 65535.0  # PNG and PGM hold no more than 16 bits
    elif picture.mode == "I":
        raise ValueError("it holds whole numbers of 32 bits, whose range is unknown: save it with 8 or 16 bits")
    else:
        top = 1.0
    if not np.isfinite(values).all() or values.min(initial=0.0) < 0 or values.max(initial=0.0) > top:
        kind = "floats" if picture.mode == "F" else "whole numbers"
        raise ValueError(f"it holds {kind} outside 0…{top:g}, whose range is unknown: save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))
