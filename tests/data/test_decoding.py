"""Any picture becomes one of 8 bits, the right way up, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surgeon.data.picture_decoder import decode_picture
from surgeon.data.pictures import Picture
from surgeon.data.settings import Pixels
from surgeon.errors import TrainingError

ORIENTATION = 0x0112


def test_a_picture_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 4), "black")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    decoded = decode_picture(Image.open(tmp_path / "a.png"), 3)
    assert decoded.size == (4, 8)
    assert decoded.getpixel((3, 0)) == (255, 0, 0)


def test_16_bits_are_scaled_by_their_range(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100], [65535, 128]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    decoded = np.asarray(decode_picture(Image.open(tmp_path / "a.png"), 1))
    assert decoded.tolist() == [[0, 100], [255, 0]]


def test_floats_between_0_and_1_are_scaled_by_their_range() -> None:
    decoded = decode_picture(Image.fromarray(np.array([[0.0, 0.5], [1.0, 0.25]], dtype=np.float32)), 3)
    assert decoded.getpixel((0, 1)) == (255, 255, 255)
    assert decoded.getpixel((1, 0)) == (128, 128, 128)


@pytest.mark.parametrize("values", [np.full((2, 2), 7.5, np.float32), np.full((2, 2), np.nan, np.float32)])
def test_floats_without_a_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="range is unknown"):
        decode_picture(Image.fromarray(values), 3)


def test_whole_numbers_of_32_bits_are_refused_with_the_row() -> None:
    encode = Picture("scan", Pixels(size=8), Path(), 0)
    with pytest.raises(TrainingError, match=r"row 4: the picture in 'scan': .*32 bits"):
        encode({"scan": Image.fromarray(np.ones((2, 2), np.int32))}, 4, False)


def test_what_is_transparent_shows_white() -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    picture.putpixel((1, 0), (255, 0, 0, 255))
    decoded = decode_picture(picture, 3)
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


def test_a_transparent_colour_of_a_palette_shows_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    decoded = decode_picture(Image.open(tmp_path / "a.png"), 3)
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "YCbCr", "HSV", "P"])
def test_every_mode_becomes_colour_or_grey(mode: str) -> None:
    picture = Image.new("L", (3, 2), 255)
    picture = picture.convert(mode) if mode in ("1", "L", "LA") else picture.convert("RGB").convert(mode)
    assert decode_picture(picture, 3).getpixel((0, 0)) == (255, 255, 255)
    assert decode_picture(picture, 1).mode == "L"


def test_grey_is_repeated_for_a_network_that_takes_colour() -> None:
    assert decode_picture(Image.new("L", (1, 1), 90), 3).getpixel((0, 0)) == (90, 90, 90)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="takes 5 channels"):
        decode_picture(Image.new("RGB", (1, 1)), 5)
