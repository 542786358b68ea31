"""What a recipe comes to is worked out by running a few of its steps."""

import toy

from earmark.models import create_model
from earmark.training.runtime import dry_run as planning
from earmark.training.runtime.dry_run import dry_run


def test_it_counts_clips_steps_and_costs(clips):
    recipe = toy.toy_recipe(clips)
    planned = dry_run(recipe)
    network = create_model("cnn6_60k", num_classes=2, n_mels=32)
    assert planned.cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert list(planned.splits) == [1, 2, None]
    assert planned.seconds_per_step > 0
    text = planned.summary()
    assert "2 labels: noise, tone\n" in text
    assert f"{clips}: 20 training clips (fold 0: 4, fold 1: 8, fold 2: 8)\n" in text
    assert (
        "without fold 1: 12 training clips, 8 evaluation clips; 3 steps per epoch, 9 in 3 epochs, about"
        in text
    )
    assert "all clips: 20 training clips; 5 steps per epoch, 15 in 3 epochs, about" in text
    total_s = 33 * planned.seconds_per_step
    assert text.endswith(f"about {total_s:.3g} s in total, without evaluation")


def test_dry_run_of_a_single_fold(clips):
    planned = dry_run(toy.toy_recipe(clips), 2)
    assert list(planned.splits) == [2]
    assert "without fold 2: 12" in planned.summary()
    assert "all clips" not in planned.summary()


def test_only_a_few_steps_run(clips, monkeypatch):
    ran = []
    train = planning.train_network

    def counted(recipe, folder, fold, report):
        def count(facts):
            ran.append((recipe.augment.crop_s, facts["epoch"], facts["step"]))
            report(facts)

        return train(recipe, folder, fold, count)

    monkeypatch.setattr(planning, "train_network", counted)
    recipe = toy.toy_recipe(
        clips, augment={"crop_s": 0.3, "crop_epoch_fraction": 0.5}, optimizer={"epochs": 100}
    )
    dry_run(recipe)
    assert ran == [(crop_s, 1, step) for crop_s in (0.3, 0.0) for step in (1, 2, 3, 4)]


def test_dry_run_of_a_training_shorter_than_its_steps(clips):
    planned = dry_run(toy.toy_recipe(clips, optimizer={"epochs": 1, "batch_size": 99}))
    assert planned.seconds_per_step > 0
    assert "1 steps per epoch, 1 in 1 epochs" in planned.summary()
