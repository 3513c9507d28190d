"""Networks that take videos are refused pictures, of which each would be a video of one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import surgeon
from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import TrainSettings

FRAMES = 4
SMALL: dict[str, Any] = {
    "image_size": 32, "num_frames": FRAMES, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "num_labels": 2,
}  # fmt: skip
OF_VIDEOS = {
    "timesformer": lambda: transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(patch_size=16, attention_type="joint_space_time", **SMALL)
    ),
    "videomae": lambda: transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(patch_size=16, tubelet_size=2, **SMALL)
    ),
    "vivit": lambda: transformers.VivitForVideoClassification(
        transformers.VivitConfig(tubelet_size=[2, 16, 16], **SMALL)
    ),
}


def pictures(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    for name in ("jump", "run"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(draw.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def network(name: str, folder: Path, *, described: bool) -> str:
    torch.manual_seed(0)
    OF_VIDEOS[name]().save_pretrained(folder)
    if described:
        transformers.VideoMAEImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("name", OF_VIDEOS)
def test_pictures_are_refused_in_training_and_prediction(tmp_path: Path, name: str, described: bool):
    path = network(name, tmp_path / "net", described=described)
    folder = pictures(tmp_path / "data")
    settings = TrainSettings(data={"source": "images", "path": str(folder)}, epochs=1)
    with pytest.raises(TrainingError, match="takes videos of 4 frames, and surgeon reads no videos") as caught:
        surgeon.finetune(path, [surgeon.ReplaceHead(classes=["jump", "run"])], settings=settings)
    assert "datasets from Python" in str(caught.value.hint)
    with pytest.raises(TrainingError, match="surgeon reads no videos"):
        surgeon.predict(path, folder)


def test_pictures_are_refused_for_convolutions_over_time(tmp_path: Path):
    from torchvision.models.video import r3d_18

    settings = TrainSettings(data={"source": "images", "path": str(pictures(tmp_path / "data"))}, epochs=1)
    with pytest.raises(TrainingError, match="VideoResNet takes videos, and surgeon reads no videos"):
        surgeon.finetune(r3d_18(), [surgeon.ReplaceHead(classes=["jump", "run"])], settings=settings)


def test_videos_from_python_are_trained_on(tmp_path: Path):
    rows = [{"pixel_values": torch.randn(FRAMES, 3, 32, 32), "labels": torch.tensor(n % 2)} for n in range(4)]
    splits = surgeon.Splits(rows, rows, inputs=("pixel_values",), classes={"labels": 2})
    model = surgeon.load(network("timesformer", tmp_path / "net", described=True))
    _, report = surgeon.finetune(
        model,
        [surgeon.ReplaceHead(classes=["jump", "run"])],
        settings=TrainSettings(epochs=1),
        data=splits,
    )
    assert report.after


def test_a_network_of_pictures_that_counts_frames_for_other_tasks_is_not_meant(tmp_path: Path):
    from surgeon.families.videos import frames_of

    config = transformers.PerceiverConfig(d_latents=16, d_model=16, num_latents=4, num_self_attends_per_block=1)
    assert config.num_frames
    assert frames_of(torch.nn.Conv2d(3, 3, 1)) is None
    assert frames_of(transformers.PerceiverModel(config)) is None
