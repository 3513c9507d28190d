from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import TrainSettings


def test_settings_are_read_without_torch():
    code = "import sys, surgeon.recipe.train_settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "given",
    [
        {"epoch": 3},
        {"data": {"source": "mnist"}},
        {"data": {"source": "digits", "classes": [1, 1]}},
        {"data": {"source": "digits", "classes": [1, 12]}},
        {"data": {"source": "digits", "channels": 2}},
        {"objectives": []},
        {"data": {"source": "digits"}, "evaluate": {"source": "digits", "test_fraction": 0.7}},
        {"data": {"source": "digits", "test_fraction": 1}},
        {"epochs": 0},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(given):
    with pytest.raises(ValidationError):
        TrainSettings.model_validate(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_decai": 0.1}, "nearest: weight_decay"),
        ({"num_train_epochs": 3}, "use train.epochs"),
        ({"output_dir": "here"}, "-o"),
    ],
)
def test_an_argument_that_the_trainer_does_not_take_is_refused_by_name(arguments, message):
    from surgeon.training.arguments import check_arguments

    with pytest.raises(TrainingError, match=message) as caught:
        check_arguments(arguments)
    assert str(caught.value).startswith(f"train.arguments.{next(iter(arguments))}: ")


def test_arguments_change_what_surgeon_would_choose(tmp_path):
    from surgeon.training.arguments import training_arguments

    settings = TrainSettings(
        epochs=4, batch_size=8, arguments={"logging_strategy": "steps", "logging_steps": 5, "weight_decay": 0.2}
    )
    arguments = training_arguments(settings, output_dir=tmp_path, seed=7)
    assert (arguments.logging_strategy, arguments.logging_steps, arguments.weight_decay) == ("steps", 5, 0.2)
    assert (arguments.num_train_epochs, arguments.per_device_train_batch_size, arguments.seed) == (4, 8, 7)


@pytest.mark.parametrize("arguments", [{"optim": "no_such"}, {"lr_scheduler_type": "steep"}])
def test_a_value_that_the_trainer_refuses_is_an_error_in_one_line(arguments, tmp_path):
    from surgeon.training.arguments import training_arguments

    with pytest.raises(TrainingError, match="refuses the settings") as caught:
        training_arguments(TrainSettings(arguments=arguments), output_dir=tmp_path, seed=0)
    assert "\n" not in caught.value.message


def test_epochs_and_max_steps_exclude_each_other(tmp_path):
    from surgeon.training.arguments import training_arguments

    with pytest.raises(TrainingError, match="exclude each other"):
        training_arguments(TrainSettings(epochs=2, arguments={"max_steps": 3}), output_dir=tmp_path, seed=0)


def test_fsdp_is_refused_where_it_would_be_left_out_silently(tmp_path):
    import torch

    from surgeon.training.arguments import training_arguments

    if torch.cuda.is_available():
        pytest.skip("FSDP is to be had here")
    with pytest.raises(TrainingError, match="several GPUs"):
        training_arguments(TrainSettings(arguments={"fsdp": True}), output_dir=tmp_path, seed=0)
