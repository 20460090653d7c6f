"""Bad input: an error before training starts, or one warning."""

from __future__ import annotations

import pickle
import re
import warnings

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradcam import GradCAMCallback, Layer, Normalization, NotExplainableError, Probe
from tests.helpers.lit import Bars, Lit, fit, loader, weights
from tests.regimes.processes import ThroughChild


def hooks_on(model):
    names = [name for name in vars(nn.Module()) if "_hooks" in name]
    return sum(len(getattr(module, name)) for module in model.modules() for name in names)


class Untrained(Lit):
    """Fails where training starts."""

    def training_step(self, batch, batch_idx):
        raise AssertionError("training started")


IMAGES = torch.rand(4, 3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probe": 0}, "at least 1 image"),
        ({"probe": "sixteen"}, r"a number of images, a Probe, or \(images, labels\) tensors, but got str"),
        ({"probe": IMAGES}, r"Probe\(images\)"),
        ({"probe": (IMAGES, torch.arange(3))}, "Expected 4 rows in labels"),
        ({"probe": (IMAGES[0, 0], torch.arange(16))}, r"\(N, C, \*spatial\)"),
        ({"every_n_epochs": 0}, "at least 1"),
        ({"method": "grad-cam"}, "Did you mean 'gradcam'"),
        ({"method": 7}, "Expected"),
        ({"target": "lable"}, "Did you mean 'label'"),
        ({"target": 1.5}, "integers"),
        ({"target": -1}, "from 0"),
        ({"target": [0, 1]}, "the order of collected images is not known"),
        ({"layers": 3}, "`layers` to be str or Module or Layer"),
        ({"forward": "model"}, "a callable, but got str"),
        ({"pixels": ([0.5], [0.5])}, "`pixels` to be Normalization or None"),
        ({"class_names": "abc"}, "`class_names` to be"),
        ({"every_n_epochs": 1.5}, "`every_n_epochs` to be int"),
        ({"film": 2.5}, "`film` to be int"),
        ({"scale": True}, "`scale` to be"),
        ({"probe": (IMAGES.numpy(), [1])}, "torch.as_tensor"),
        ({"probe": (IMAGES, torch.rand(4))}, r"labels.long\(\)"),
        ({"target": "label", "probe": Probe(IMAGES)}, "it has none"),
        ({"scale": "shard"}, "'image', 'shared' or a positive number"),
        ({"scale": -1.0}, "a positive number"),
        ({"colormap": "infernal"}, "Did you mean 'inferno'"),
        ({"film": 1}, "2 to 16"),
        ({"film": 99}, "2 to 16"),
        ({"tag": ""}, "at least one character"),
        ({"save_probe": "pickle"}, "'images' or 'hash'"),
        ({"on_error": "ignore"}, "'warn' or 'raise'"),
    ],
)
def test_wrong_arguments_raise_at_construction(arguments, message):
    with pytest.raises(MisconfigurationException, match=message):
        GradCAMCallback(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "featurs"}, "Did you mean 'features'"),
        ({"layers": ["features", "2"]}, "Did you mean 'features.2'"),
        ({"layers": "head"}, "a layer with a spatial output"),
        ({"probe": (IMAGES[:, :1], torch.arange(4) % 3)}, r"\(4, 1, 16, 16\)|\(2, 1, 16, 16\)"),
        ({"probe": (IMAGES, torch.tensor([0, 1, 2, 3]))}, "classes from 0 to 2, as the model has 3, but got 3"),
        ({"probe": (IMAGES, torch.tensor([0, 1, 2, -1]))}, "but got -1"),
        ({"target": 3}, "classes from 0 to 2"),
        ({"target": [0, 1], "probe": (IMAGES, torch.arange(4) % 3)}, "one for each of 4"),
        ({"class_names": ["one", "two"]}, "3 class names"),
        ({"pixels": Normalization((0.1, 0.2), (1, 1))}, "each of 3 channels"),
        ({"probe": Probe(IMAGES / 0)}, "finite images"),
        ({"forward": lambda model, probe: model(probe.extras["mask"])}, "KeyError"),
    ],
)
def test_arguments_that_misfit_the_model_raise_before_training(tmp_path, arguments, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, [GradCAMCallback(**arguments)], make=Untrained)


class NoSpatial(Lit):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 16), nn.ReLU())

    def forward(self, images):
        return self.head(self.features(images))


class NeedsMore(Lit):
    def forward(self, images, mask):
        return super().forward(images * mask)

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch[0], torch.ones(1)), batch[1])


class Fails(Lit):
    """Its forward raises in evaluation outside of Lightning's own steps."""

    def forward(self, images):
        if not self.training and len(images) != 12:
            raise RuntimeError("only batches of 12")
        return super().forward(images)


class NoLogits(Lit):
    def forward(self, images):
        return {"maps": self.features(images)}

    def loss(self, batch):
        return nn.functional.cross_entropy(self.head(self(batch[0])["maps"].mean((2, 3))), batch[1])


FAULTS = {
    "no spatial output": (NoSpatial, {}, "no module returns a spatial output.*to_grid"),
    "forward needs more": (NeedsMore, {}, r"needs \(images, mask\).*`forward=`"),
    "forward raises": (Fails, {}, "RuntimeError: only batches of 12.*`forward=`"),
    "no logits": (NoLogits, {}, "Expected logits.*`target=`"),
    "rule chooses nothing": (Lit, {"layers": lambda shapes: []}, "chose no layer"),
    "method raises": (Lit, {"method": lambda activations, gradients: activations / "a"}, "TypeError"),
    "method returns a wrong shape": (Lit, {"method": lambda activations, gradients: activations}, "Expected evidence"),
}


def after_the_first_epoch(change):
    """A module that is changed while it trains."""

    class Changing(Lit):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                change(self)

    return Changing


def lose_a_layer(model):
    model.features = nn.Sequential(nn.Sequential(*model.features), nn.Identity())


def widen(model):
    model.head = nn.Linear(16, 5)


def shrink(model):
    model.features[3] = nn.MaxPool2d(4)


class Skips(Lit):
    """Calls its last layers without their parent from the second epoch on, so that no hook of the parent fires."""

    def forward(self, images):
        parent = self._trainer is None or self.current_epoch == 0
        features = self.features(images) if parent else self.run(images)
        return self.head(features.mean((2, 3)))

    def run(self, features):
        for part in self.features:
            features = part(features)
        return features


CHANGES = {
    "a layer is lost": (after_the_first_epoch(lose_a_layer), {"layers": "features.5"}, "no longer in the model"),
    "classes are added": (after_the_first_epoch(widen), {}, "returned 3 logits per image .* and 5 now"),
    "maps shrink": (after_the_first_epoch(shrink), {}, r"8×8 .*4×4"),
    "a hook never fires": (Skips, {}, "its hook did not fire.*`layers=`"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changing_model_disables_explanations_with_one_warning(tmp_path, name):
    make, arguments, message = CHANGES[name]
    callback = GradCAMCallback(**arguments)
    with pytest.warns(UserWarning, match=message) as caught:
        trainer = fit(tmp_path, [callback, EarlyStopping("gradcam/drift", patience=9)], make=make, max_epochs=3)
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
    assert callback.monitor.tracker.snapshots == 2  # before the first step, and after the first epoch
    assert hooks_on(trainer.lightning_module) == 0
    assert weights(trainer) == weights(fit(tmp_path, make=make, max_epochs=3))


def test_unwritable_folder_loses_files_only(tmp_path):
    (tmp_path / "gradcam").write_text("a file stands where the folder should be")
    with pytest.warns(UserWarning, match=r"could not be written to the folder of files \(\w+Error") as caught:
        trainer = fit(tmp_path, [GradCAMCallback()], logger=False)
    messages = [str(w.message) for w in caught if "GradCAM" in str(w.message)]
    assert len(messages) == 2
    assert all(any(content in message for message in messages) for content in ("A figure could", "Numbers could"))
    assert trainer.callback_metrics["gradcam/drift"] < 1  # numbers go on
    assert weights(trainer) == weights(fit(tmp_path, logger=False))


def test_drawing_error_disables_explanations_with_one_warning(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise IndexError("out of ink")

    monkeypatch.setattr("lightning_gradcam.render.sheet.Sheet.draw", fail)
    with pytest.warns(
        UserWarning, match="Explanations are disabled for the rest of the run: IndexError: out of ink"
    ) as caught:
        trainer = fit(tmp_path, [GradCAMCallback()])
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
    assert weights(trainer) == weights(fit(tmp_path))


@pytest.mark.parametrize("where", ["training_step", "validation_step", "forward"])
def test_user_error_is_not_hidden_and_leaves_no_hook(tmp_path, where):
    class UsersError(Exception):
        pass

    class Raises(Lit):
        def fail(self, place):
            if place == where and self._trainer and self.trainer.global_step == 6:
                raise UsersError

        def forward(self, images):
            self.fail("forward")
            return super().forward(images)

        def training_step(self, batch, batch_idx):
            self.fail("training_step")
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.fail("validation_step")
            super().validation_step(batch, batch_idx)

    model, callback = Raises(), GradCAMCallback()
    with pytest.raises(UsersError):
        fit(tmp_path, [callback], model=model, val_check_interval=2)
    assert callback.monitor.tracker.snapshots >= 2
    assert hooks_on(model) == 0


@pytest.mark.parametrize("name", FAULTS)
def test_unexplainable_model_warns_once_and_trains_unchanged(tmp_path, name):
    make, arguments, message = FAULTS[name]
    stopping = EarlyStopping("gradcam/drift", patience=9)  # what is waited for has to come all the same
    saved = ModelCheckpoint(tmp_path, monitor="gradcam/accuracy", mode="max")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(tmp_path, [GradCAMCallback(**arguments), stopping, saved], make=make, enable_checkpointing=True)
    ours = [str(w.message) for w in caught if "GradCAM" in str(w.message)]
    assert len(ours) == 1, ours
    assert re.search(message, ours[0], re.DOTALL), ours[0]
    assert trainer.callback_metrics["gradcam/drift"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert weights(trainer) == weights(fit(tmp_path, make=make))


def test_on_error_raise_raises_the_error(tmp_path):
    with pytest.raises(NotExplainableError, match="no module returns a spatial output"):
        fit(tmp_path, [GradCAMCallback(on_error="raise")], make=NoSpatial)


class Vectors(Lit):
    """Batches hold no image."""

    def __init__(self):
        super().__init__()
        self.features = nn.Linear(5, 16)

    def forward(self, vectors):
        return self.head(self.features(vectors))


def test_batches_without_images_warn(tmp_path):
    vectors = DataLoader(TensorDataset(torch.rand(24, 5), torch.arange(24) % 3), 12)
    with pytest.warns(UserWarning, match="batches were seen, none with images.*probe="):
        fit(tmp_path, [GradCAMCallback()], make=Vectors, train=vectors, val=vectors)


def test_empty_validation_loader_collects_from_training(tmp_path):
    callback = GradCAMCallback()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Total length|zero length|empty)")
        fit(tmp_path, [callback], val=DataLoader(TensorDataset(torch.rand(0, 3, 16, 16), torch.arange(0)), 4))
    assert callback.monitor is not None
    assert len(callback.monitor.probe) == 16


def test_nan_weights_warn_once_and_snapshots_continue(tmp_path, read_events):
    class Breaks(Lit):
        def on_train_epoch_end(self):
            self.head.weight.data[0, 0] = torch.nan

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.loss(batch).nan_to_num(9))

    with pytest.warns(UserWarning, match="NaN or infinite.*learning rate") as caught:
        trainer = fit(tmp_path, [GradCAMCallback(curves="all")], make=Breaks, max_epochs=4)
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
    events = read_events(trainer.log_dir)
    drift = [e.value for e in events.Scalars("gradcam/drift")]
    assert all(torch.isfinite(torch.tensor(drift)))
    assert drift[-1] == drift[-2]  # repeated, and the next curve tells why
    assert [e.value for e in events.Scalars("gradcam/degenerate")][-1] == 1
    assert len(events.Images("gradcam/features")) == 5


def test_integers_that_are_not_labels_are_dropped(tmp_path):
    class Indexed(Bars):
        def __getitem__(self, index):
            return super().__getitem__(index)[0], 102 + index

    class Remainder(Lit):
        def loss(self, batch):
            return nn.functional.cross_entropy(self(batch[0]), batch[-1] % 3)

    callback = GradCAMCallback()
    with pytest.warns(UserWarning, match="range from 1.. to 1.., but the model has 3 classes"):
        fit(tmp_path, [callback], make=Remainder, val=DataLoader(Indexed(36), 12))
    assert callback.monitor.labels is None


def test_labels_behind_other_integers_are_found(tmp_path):
    class Indexed(Bars):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, 100 + index, label

    class Third(Lit):
        def loss(self, batch):
            return nn.functional.cross_entropy(self(batch[0]), batch[-1])

    callback = GradCAMCallback()
    fit(tmp_path, [callback], make=Third, val=DataLoader(Indexed(36), 12))
    monitor, data = callback.monitor, Bars(36)
    images = torch.stack([data[i][0] for i in range(36)])
    rows = [int((images == image).flatten(1).all(1).nonzero()) for image in monitor.probe.images]
    assert monitor.labels.tolist() == data.labels[rows].tolist()


def test_class_names_from_data_are_sanitized(tmp_path, read_events):
    class Odd(Lit):
        def __init__(self):
            super().__init__()
            self.add_module("<b>/x|y", nn.Conv2d(16, 16, 1))

        def forward(self, images):
            return self.head(self._modules["<b>/x|y"](self.features(images)).mean((2, 3)))

    def odd(shapes):
        return [Layer(shapes[-2].name, reason="<script>*hi*</script>")]

    names = ["<img src=x>", "*b*|c", "c\n\nd"]
    trainer = fit(tmp_path / "a", [GradCAMCallback(layers=odd, class_names=names)], model=Odd(), logger=False)
    files = [p.relative_to(tmp_path / "a" / "gradcam") for p in (tmp_path / "a").rglob("*.png")]
    assert files
    assert all(".." not in p.parts for p in files)
    assert not list(tmp_path.glob("*.png"))
    trainer = fit(tmp_path / "b", [GradCAMCallback(layers=odd, class_names=names)], model=Odd())
    text = read_events(trainer.log_dir).Tensors("gradcam/choices/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "<script>" not in text
    assert "<b>" not in text


def test_two_callbacks_with_two_tags_are_independent(tmp_path, read_events):
    trainer = fit(tmp_path, [GradCAMCallback(), GradCAMCallback(tag="first", layers="features.2")])
    tags = read_events(trainer.log_dir).Tags()
    assert {"gradcam/features", "first/features.2"} <= set(tags["images"])
    assert {"gradcam/drift", "first/drift"} <= set(tags["scalars"])
    assert len({c.state_key for c in trainer.callbacks if isinstance(c, GradCAMCallback)}) == 2


class Renamed(GradCAMCallback):
    """A subclass, whose state has another key."""


@pytest.mark.parametrize(
    "second",
    [GradCAMCallback(), GradCAMCallback(layers="stages"), Renamed(), GradCAMCallback(tag="/gradcam/")],
    ids=repr,
)
def test_two_callbacks_with_one_tag_are_refused(tmp_path, second):
    with pytest.raises(
        MisconfigurationException, match=r"different `tag` .* 2 have the tag 'gradcam'.*tag='gradcam_2'"
    ):
        fit(tmp_path, [GradCAMCallback(), second])
    assert not list(tmp_path.rglob("*.ckpt"))


def test_checkpoint_keys_are_plain_text(tmp_path):
    trainer = fit(tmp_path, [GradCAMCallback()])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    keys = torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]
    [key] = [key for key in keys if "GradCAM" in key]
    assert type(key) is str
    assert key == GradCAMCallback().state_key
    assert type(pickle.loads(pickle.dumps(GradCAMCallback().state_key))) is str


def test_forward_argument_gets_extra_inputs_of_the_batch(tmp_path):
    class Masked(Bars):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return {"mask": torch.ones(1), "image": image, "label": label}

    class ByName(NeedsMore):
        def loss(self, batch):
            return nn.functional.cross_entropy(self(batch["image"], batch["mask"][:, :, None, None]), batch["label"])

    callback = GradCAMCallback(forward=lambda m, p: m(p.images, p.extras["mask"][:, :, None, None]))
    fit(tmp_path, [callback], make=ByName, train=DataLoader(Masked(48), 12), val=DataLoader(Masked(36), 12))
    assert callback.monitor is not None
    assert callback.monitor.labels is not None


def test_module_without_forward_uses_its_child(tmp_path):
    callback = GradCAMCallback()
    fit(tmp_path, [callback], make=ThroughChild)
    assert callback.monitor.explainer.layers[0].name == "net.0"


def test_callback_never_iterates_the_loader(tmp_path):
    class Counted(Bars):
        taken = 0

        def __getitem__(self, index):
            type(self).taken += 1
            return super().__getitem__(index)

    fit(tmp_path, [GradCAMCallback()], val=DataLoader(Counted(36), 12), num_sanity_val_steps=0)
    assert Counted.taken == 2 * 36
    assert loader(4)  # the helper is what it says
