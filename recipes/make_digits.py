"""Make recipes/digits.pt: torchvision's shufflenet_v2_x0_5 trained on scikit-learn's digits 0 to 4.

    python recipes/make_digits.py [OUTPUT]

Takes about a minute on one core, and needs no network. On one machine it writes the same bytes every time;
another processor or version of PyTorch rounds otherwise, which training magnifies: it ends at other weights, which
predict alike (tests/training/test_make_digits.py says how nearly).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import shufflenet_v2_x0_5

from surgeon.data.digits import SCAN, load_data, read_digits, render
from surgeon.recipe.train_settings import Digits

DATA = Digits(classes=[0, 1, 2, 3, 4])
EPOCHS = 40
BATCH = 64
PEAK = 5e-3
SEED = 0


def train(epochs: int = EPOCHS) -> nn.Module:
    """Train the network from fresh weights; each scan lies at another place in every epoch."""
    torch.manual_seed(SEED)
    scans, _ = read_digits(DATA)
    model = shufflenet_v2_x0_5(num_classes=len(DATA.classes))
    steps = len(scans.images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=epochs * steps)
    model.train()
    for _ in range(epochs):
        places = torch.randint(DATA.canvas - SCAN + 1, (len(scans.images), 2))
        pixels = render(scans.images, places, canvas=DATA.canvas, size=DATA.size, channels=DATA.channels)
        for rows in torch.randperm(len(pixels))[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(pixels[rows]), scans.labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def predict(model: nn.Module) -> tuple[Tensor, Tensor]:
    """The predicted and the true classes of the test samples, ``(360,)`` each."""
    test = load_data(DATA).test
    with torch.no_grad():
        return model(test.columns["pixel_values"]).argmax(1), test.columns["labels"]  # type: ignore[attr-defined]


def main() -> None:
    """Train, say how well it went, and write the bare state dict."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("digits.pt")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums are split by thread, and so round differently with their number
    model = train()
    predicted, labels = predict(model)
    archive = io.BytesIO()  # given a path, torch.save would write its name into the file
    torch.save(model.state_dict(), archive)
    output.write_bytes(archive.getvalue())
    accuracy = (predicted == labels).float().mean().item()
    print(f"{output}: {accuracy:.1%} of {len(labels)} test samples right, {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
