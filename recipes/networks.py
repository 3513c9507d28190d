"""The small networks of the recipes, for pictures of 16 x 16 pixels.

A recipe names one as ``arch: python:networks:convnet``; this folder must then be on Python's path:

    PYTHONPATH=recipes surgeon apply recipes/source.yaml
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (16, 32, 64, 64)


class Block(nn.Sequential):
    """Convolution, batch norm, ReLU: ``(batch, channels, h, w)`` → ``(batch, width, h / stride, w / stride)``."""

    def __init__(self, channels: int, width: int, stride: int, *, norm: bool = True) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=not norm),
            nn.BatchNorm2d(width) if norm else nn.Identity(),
            nn.ReLU(),
        )


class ConvNet(nn.Module):
    """Four blocks, a mean over places and a linear head: ``(batch, channels, 16, 16)`` → ``(batch, classes)``.

    Args:
        classes: The number of outputs.
        channels: Those of the pictures.
        norm: Whether blocks hold batch norms.
        grid: The mean is over the whole picture (1), or over each of grid x grid parts of it.
    """

    def __init__(self, classes: int, channels: int, *, norm: bool = True, grid: int = 1) -> None:
        super().__init__()
        sizes = zip((channels, *WIDTHS), WIDTHS, (1, 2, 2, 1), strict=False)
        self.blocks = nn.Sequential(*(Block(before, width, stride, norm=norm) for before, width, stride in sizes))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(grid), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1] * grid**2, classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of a batch of pictures."""
        return self.head(self.pool(self.blocks(pixel_values)))


class PoolNet(nn.Module):
    """Ganin & Lempitsky's (2015, figure 4a) for MNIST: ``(batch, 3, 16, 16)`` → ``(batch, 10)``.

    Theirs has 5 x 5 convolutions with 32 and 48 maps, and 100 units in each hidden layer, for 28 x 28 pixels. Here
    maps and units are half as many and convolutions 3 x 3, as the picture is about half as wide. Their domain
    classifier reads what :attr:`blocks` hand on.

    Args:
        norm: Whether a batch norm follows each layer but the last; theirs has none.
    """

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Block(3, 16, 1, norm=norm), nn.MaxPool2d(2), Block(16, 24, 1, norm=norm), nn.MaxPool2d(2), nn.Flatten()
        )
        self.features = nn.Sequential(*self._hidden(24 * 4 * 4, norm), *self._hidden(50, norm))
        self.head = nn.Linear(50, 10)

    @staticmethod
    def _hidden(inputs: int, norm: bool) -> list[nn.Module]:
        return [nn.Linear(inputs, 50), nn.BatchNorm1d(50) if norm else nn.Identity(), nn.ReLU()]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of a batch of pictures."""
        return self.head(self.features(self.blocks(pixel_values)))  # type: ignore[no-any-return]


def convnet(classes: int = 5, channels: int = 1) -> ConvNet:
    """A network with fresh weights, of about 65,000 parameters."""
    return ConvNet(classes, channels)


def tennet() -> ConvNet:
    """For ten classes of grey pictures."""
    return ConvNet(10, 1)


def poolnet() -> PoolNet:
    """For ten classes of pictures in colour."""
    return PoolNet(norm=True)


def poolnet_without_norms() -> PoolNet:
    """The same without batch norms."""
    return PoolNet(norm=False)


def gridnet() -> ConvNet:
    """For grey pictures in which it matters where something is."""
    return ConvNet(10, 1, grid=2)


class DigitNet(nn.Module):
    """Four blocks without norms, each but the last halving the picture: ``(batch, 1, 16, 16)`` → ``(batch, classes)``.

    The head reads what every place shows, so that the network must learn from its samples that a digit's place does
    not matter.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks = []
        for before, width, halved in zip((1, *WIDTHS), WIDTHS, (True, True, True, False), strict=False):
            pool = [nn.MaxPool2d(2)] if halved else []
            blocks.append(nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), *pool))
        self.blocks = nn.Sequential(*blocks)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(WIDTHS[-1] * 4, classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of a batch of pictures."""
        return self.head(self.flatten(self.blocks(pixel_values)))  # type: ignore[no-any-return]


def digitnet(classes: int = 5) -> DigitNet:
    """A network with fresh weights, of about 62,000 parameters."""
    return DigitNet(classes)
