"""What every dataset does alike: parts, classes, normalisation, batches."""

import ast
import dataclasses
import hashlib
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from conftest import CONF, composed
from glimpse.assembly import build_data
from glimpse.data import module
from glimpse.data.augment.base import Draws, resized
from glimpse.data.augment.flips import CropFlip, Flip
from glimpse.data.augment.mixing import MixUp
from glimpse.data.augment.presize import Presize
from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule
from glimpse.data.pixel_statistics import IMAGENET_MEAN, IMAGENET_STD
from glimpse.data.spec import Arrays, Source
from glimpse.errors import UserError
from makers import MAKERS, make_cifar10, make_image_folder, make_mnist, make_tiny_imagenet


class Toy(ImageDataModule):
    """Three classes of unequal size; the parts are given."""

    embedded: ClassVar[bool] = True

    def __init__(
        self, *, counts: dict[str, tuple[int, ...]], channels: int = 3, **common: Any
    ) -> None:
        super().__init__(
            **{"data_dir": "none", "seed": 0, "batch_size": 8, "val_fraction": 0.0} | common
        )
        self.counts = counts
        self.channels = channels

    def source_files(self) -> Iterable[Path]:
        return ()

    def read(self) -> Source:
        random = np.random.default_rng(1)
        parts = {}
        for name, counts in self.counts.items():
            labels = random.permutation(np.repeat(np.arange(3), counts))
            shape = (len(labels), 5, 7, self.channels)
            level = 60 + 50 * labels[:, None, None, None] + 9 * np.arange(self.channels)
            images = random.normal(level, 20, shape).clip(0, 255).astype(np.uint8)
            parts[name] = Arrays(images, labels)
        return Source(("ant", "bee", "cow"), **parts)


TRAIN: dict[str, tuple[int, ...]] = {"train": (20, 30, 50)}
OFFICIAL = TRAIN | {"heldout": (4, 6, 10)}
THREE = OFFICIAL | {"test": (3, 3, 3)}


def toy(counts: dict[str, tuple[int, ...]] = OFFICIAL, **options: Any) -> Toy:
    data = Toy(counts=counts, **options)
    data.prepare_data()
    data.setup()
    return data


class OfAFolder(Toy):
    embedded: ClassVar[bool] = False

    def source_files(self) -> Iterable[Path]:
        return [self.data_dir]


def test_a_folder_in_place_of_its_files_is_refused(tmp_path: Path) -> None:
    """Nobody would notice that a file in it has changed."""
    data = OfAFolder(counts=OFFICIAL, data_dir=str(tmp_path))
    with pytest.raises(
        UserError, match=r"source_files\(\) returns the folder .*, expected its files"
    ):
        data.prepare_data()


def test_it_can_be_printed() -> None:
    assert str(toy()).startswith("Toy(train 100 (all of it), val 20")


def rows(data: ImageDataModule, split: str) -> set[tuple[str, int]]:
    chosen = data.splits[split]
    return {(chosen.part, int(row)) for row in chosen.rows}


def class_counts(data: ImageDataModule, split: str) -> list[int]:
    return np.bincount(data.labels(split), minlength=data.spec.num_classes).tolist()


def from_yaml(name: str, data_dir: Path, *overrides: str) -> ImageDataModule:
    config, _ = composed(f"data={name}", f"data_dir={data_dir}", *overrides)
    return build_data(config)


# Splits -----------------------------------------------------------------------------------------


def test_official_heldout_set_validates_where_no_part_of_training_does() -> None:
    data = toy(val_fraction=0.0)
    assert set(data.splits) == {"train", "val"}
    assert rows(data, "train") == {("train", row) for row in range(100)}
    assert rows(data, "val") == {("heldout", row) for row in range(20)}
    assert "no test set" in data.describe()


def test_official_heldout_set_tests_where_a_part_of_training_validates() -> None:
    data = toy(val_fraction=0.1)
    assert rows(data, "test") == {("heldout", row) for row in range(20)}
    assert len(rows(data, "val")) == 10
    assert rows(data, "train") | rows(data, "val") == {("train", row) for row in range(100)}
    assert not rows(data, "train") & rows(data, "val")
    assert data.describe() == (
        "train 90 (the rest), val 10 (10% of training, split_seed 0), "
        "test 20 (the official held-out set)"
    )


def test_parts_are_stratified() -> None:
    data = toy(val_fraction=0.1)
    assert class_counts(data, "val") == [2, 3, 5]
    assert class_counts(data, "train") == [18, 27, 45]
    data = toy(TRAIN, val_fraction=0.1, test_fraction=0.3)
    assert class_counts(data, "test") == [6, 9, 15]
    assert class_counts(data, "val") == [2, 3, 5]


def test_without_a_heldout_set_both_fractions_count_from_all_images() -> None:
    data = toy(TRAIN, val_fraction=0.2, test_fraction=0.3)
    parts = [rows(data, name) for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [50, 20, 30]
    assert set.union(*parts) == {("train", row) for row in range(100)}


def test_the_drawn_test_set_does_not_depend_on_the_validation_fraction() -> None:
    tests = [rows(toy(TRAIN, val_fraction=f), "test") for f in (0.1, 0.3)]
    assert tests[0] == tests[1] == rows(toy(TRAIN, val_fraction=0.0), "val")


def test_without_a_heldout_set_the_drawn_one_validates_at_fraction_0() -> None:
    data = toy(TRAIN, val_fraction=0.0, test_fraction=0.2)
    assert set(data.splits) == {"train", "val"}
    assert class_counts(data, "val") == [4, 6, 10]
    assert len(rows(data, "train") | rows(data, "val")) == 100


@pytest.mark.parametrize(("fraction", "validates"), [(0.0, "heldout"), (0.1, "train")])
def test_a_third_labelled_set_tests(fraction: float, validates: str) -> None:
    data = toy(THREE, val_fraction=fraction)
    assert {part for part, _ in rows(data, "val")} == {validates}
    assert rows(data, "test") == {("test", row) for row in range(9)}


@pytest.mark.parametrize("counts", [TRAIN, OFFICIAL])
def test_parts_are_drawn_with_split_seed_not_seed(counts: dict[str, tuple[int, ...]]) -> None:
    first = toy(counts, val_fraction=0.2)
    same, other = toy(counts, val_fraction=0.2, seed=9), toy(counts, val_fraction=0.2, split_seed=9)
    for name in first.splits:
        assert rows(same, name) == rows(first, name)
    assert rows(other, "val") != rows(first, "val")


def test_no_heldout_images_at_all_are_refused() -> None:
    with pytest.raises(UserError, match=r"type data\.test_fraction=0\.2"):
        toy(TRAIN, test_fraction=0.0)


def test_a_fraction_too_small_for_every_class_is_named() -> None:
    with pytest.raises(
        UserError, match=r"data\.val_fraction=0\.01 .* type data\.val_fraction=0\.0"
    ) as error:
        toy(val_fraction=0.01)
    assert len(str(error.value).splitlines()) == 1


# Classes ----------------------------------------------------------------------------------------


def test_classes_are_relabelled_in_the_given_order() -> None:
    whole, chosen = toy(), toy(classes=["cow", "ant"])
    assert chosen.spec.class_names == ("cow", "ant")
    assert chosen.spec.num_classes == 2
    assert class_counts(chosen, "train") == [50, 20]
    assert class_counts(chosen, "val") == [10, 4]
    names = {row: whole.spec.class_names[label] for row, label in enumerate(whole.labels("train"))}
    for batch in chosen.train_dataloader():
        for index, label in zip(batch.indices, batch.labels, strict=True):
            assert names[int(index)] == chosen.spec.class_names[label]


def test_an_unknown_class_gets_the_nearest_named() -> None:
    with pytest.raises(UserError, match=r"data\.classes.*no class bees .*did you mean bee\?"):
        toy(classes=["ant", "bees"])


def test_an_unknown_class_far_from_all_gets_some_named() -> None:
    with pytest.raises(UserError, match=r"no class zzz .*it has ant, bee, cow$"):
        toy(classes=["ant", "zzz"])


@pytest.mark.parametrize("classes", [["ant"], [], ["ant", "ant"]])
def test_fewer_than_two_classes_or_one_twice_are_refused(classes: list[str]) -> None:
    with pytest.raises(UserError, match="expected two or more different classes"):
        toy(classes=classes)


def test_names_that_yaml_takes_for_numbers(tmp_path: Path) -> None:
    data = from_yaml("digits", tmp_path, "data.classes=[8,3]")
    assert data.spec.class_names == ("8", "3")


def test_a_part_without_an_image_of_the_classes_is_named() -> None:
    bees_and_cows = {"classes": ["bee", "cow"]}
    none: tuple[int, ...] = (9, 0, 0)
    for counts, options, what in (
        (TRAIN | {"train": none}, {}, "the training set has"),
        (TRAIN | {"train": none}, {"val_fraction": 0.2}, "the training set has"),
        (OFFICIAL | {"heldout": none}, {}, "the validation set (the official held-out set) has"),
        (
            OFFICIAL | {"heldout": none},
            {"val_fraction": 0.2},
            "the test set (the official held-out set) has",
        ),
        (THREE | {"test": none}, {}, "the test set (the official test set) has"),
    ):
        with pytest.raises(UserError) as error:
            toy(counts, **bees_and_cows, **options)
        assert str(error.value) == (
            f"{what} no image of data.classes=[bee,cow]: expected one or more; type data.classes=[…] "
            "with classes that have images in it"
        )


def test_messages_name_keys_that_exist() -> None:
    known = {key for path in (CONF / "data").glob("*.yaml") for key in OmegaConf.load(path)}
    for path in Path(module.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = set(re.findall(r"\bdata\.([a-z_0-9]+)", node.value))
                assert id(node) in documented or found <= known, (path, node.value)


# Normalisation ----------------------------------------------------------------------------------


def images_of(data: ImageDataModule, split: str) -> NDArray[np.uint8]:
    return np.concatenate([batch.images.numpy() for batch in data.batches.loader(split)])


def network_sees(data: ImageDataModule, split: str) -> NDArray[np.float32]:
    """(N, C, H, W)"""
    batches = [data.batches.to_network(batch).images for batch in data.batches.loader(split)]
    return torch.cat(batches).numpy()


def test_none_scales_to_one() -> None:
    data = toy(normalize="none")
    assert (data.spec.mean, data.spec.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    seen = network_sees(data, "val")
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, images_of(data, "val").transpose(0, 3, 1, 2) / 255, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_strides_of_the_layout_asked_for(channels: int) -> None:
    data = toy(channels=channels)  # by default the one that is not channels-last
    images = data.batches.to_network(first_batch(data)).images
    assert images.stride() == (channels * 5 * 7, 5 * 7, 7, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
def test_dataset_normalises_with_all_training_images(channels: int, val_fraction: float) -> None:
    data = toy(normalize="dataset", channels=channels, val_fraction=val_fraction)
    whole = images_of(toy(channels=channels), "train") / 255
    np.testing.assert_allclose(data.spec.mean, whole.mean((0, 1, 2)), atol=5.1e-5)
    np.testing.assert_allclose(data.spec.std, whole.std((0, 1, 2)), atol=5.1e-5)
    if not val_fraction:
        seen = network_sees(data, "train")
        np.testing.assert_allclose(seen.mean((0, 2, 3)), 0, atol=2e-3)
        np.testing.assert_allclose(seen.std((0, 2, 3)), 1, atol=2e-3)


def test_a_test_set_drawn_from_training_is_not_in_the_statistics() -> None:
    data = toy(TRAIN, normalize="dataset", val_fraction=0.2, test_fraction=0.3)
    images = np.concatenate([images_of(data, "train"), images_of(data, "val")]) / 255
    np.testing.assert_allclose(data.spec.mean, images.mean((0, 1, 2)), atol=5.1e-5)


def test_imagenet_normalises_as_pretrained_weights_expect() -> None:
    data = toy(normalize="imagenet")
    assert (data.spec.mean, data.spec.std) == (IMAGENET_MEAN, IMAGENET_STD)
    scaled = images_of(data, "val").transpose(0, 3, 1, 2) / 255
    mean, std = (np.array(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    np.testing.assert_allclose(network_sees(data, "val"), (scaled - mean) / std, atol=1e-5)


def test_imagenet_on_grey_images_is_the_mean_over_channels() -> None:
    data = toy(normalize="imagenet", channels=1)
    assert data.spec.mean == pytest.approx((np.mean(IMAGENET_MEAN),), abs=1e-4)
    assert data.spec.std == pytest.approx((np.mean(IMAGENET_STD),), abs=1e-4)


def test_cifar2_is_normalised_with_all_of_cifar10(tmp_path: Path) -> None:
    make_cifar10(tmp_path, per_class=10)
    two, ten = from_yaml("cifar2", tmp_path), from_yaml("cifar10", tmp_path, "data.val_fraction=0")
    assert two.spec.class_names == ("airplane", "bird")
    pixels = images_of(ten, "train") / 255
    np.testing.assert_allclose(two.spec.mean, pixels.mean((0, 1, 2)), atol=5.1e-5)
    np.testing.assert_allclose(two.spec.std, pixels.std((0, 1, 2)), atol=5.1e-5)


@pytest.mark.parametrize("normalize", ["none", "dataset", "imagenet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_to_pixels_undoes_the_normalisation(normalize: str, channels: int) -> None:
    data = toy(normalize=normalize, channels=channels)
    pixels = data.batches.to_pixels(torch.from_numpy(network_sees(data, "val"))).numpy()
    expected = images_of(data, "val").transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(pixels, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_can_be_seen_as_another_spec_says(channels: int) -> None:
    own, data = (toy(normalize="dataset", channels=channels, val_fraction=0.2) for _ in range(2))
    fingerprint, described = data.fingerprint, data.describe()
    shape = {"height": 4, "width": 6, "mean": (0.5,) * channels, "std": (0.25,) * channels}
    spec = dataclasses.replace(own.spec, **shape)  # type: ignore[arg-type]
    network_sees(data, "val")
    data.see_as(spec)
    assert data.spec == spec
    seen = network_sees(data, "val")
    assert seen.shape[1:] == (channels, 4, 6)
    stored = torch.from_numpy(images_of(data, "val")).permute(0, 3, 1, 2)
    expected = (resized(stored, (4, 6)) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    pixels = data.batches.to_pixels(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(pixels, resized(stored, (4, 6)) / 255, atol=1e-5)
    assert (data.fingerprint, data.describe()) == (fingerprint, described)
    assert data.stored_size == own.stored_size
    np.testing.assert_array_equal(images_of(data, "train"), images_of(own, "train"))


def test_grey_images_cannot_be_seen_as_coloured_ones() -> None:
    with pytest.raises(UserError, match="of this dataset are grey, expected RGB: type data_dir"):
        toy(channels=1).see_as(toy(channels=3).spec)


# Batches ----------------------------------------------------------------------------------------


def test_labels_are_those_of_the_batches() -> None:
    data = toy(val_fraction=0.2, classes=["cow", "ant"])
    for name in ("train", "val", "test"):
        served = torch.cat([batch.labels for batch in data.batches.loader(name)])
        np.testing.assert_array_equal(served, data.labels(name))


def test_training_batches_are_shuffled_by_seed_and_hold_every_image() -> None:
    def order(seed: int) -> list[int]:
        return torch.cat([b.indices for b in toy(seed=seed).train_dataloader()]).tolist()

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(100))


def test_test_batches_are_of_the_scored_split() -> None:
    data = toy(val_fraction=0.2)
    for name in ("test", "train", "val"):
        data.batches.score(name)
        served = torch.cat([batch.indices for batch in data.test_dataloader()])
        np.testing.assert_array_equal(served, data.splits[name].rows)


def first_batch(data: ImageDataModule) -> Batch:
    return next(iter(data.batches.loader("train")))


def test_training_batches_are_augmented_and_no_others() -> None:
    plain, augmented = toy(), toy(augment=Flip(p=1.0))
    before = plain.batches.to_network(first_batch(plain)).images
    batch = first_batch(augmented)
    assert torch.equal(augmented.batches.to_network(batch, training=True).images, before.flip(3))
    assert torch.equal(augmented.batches.to_network(batch).images, before)


def test_augmentation_draws_by_seed_epoch_and_index() -> None:
    data = toy(augment=CropFlip(), seed=3)
    batch = first_batch(data)
    images = batch.images.permute(0, 3, 1, 2)
    for epoch in range(3):
        draws = Draws(batch.indices, seed=3, epoch=epoch)
        expected = CropFlip()(images, draws) / 255
        assert torch.equal(
            data.batches.to_network(batch, training=True, epoch=epoch).images, expected
        )


def test_mixed_labels_are_shares_of_the_classes_in_training_only() -> None:
    data = toy(augment=MixUp(alpha=1.0, mix_p=1.0))
    batch = first_batch(data)
    mixed = data.batches.to_network(batch, training=True).labels
    assert mixed.shape == (8, 3)
    torch.testing.assert_close(mixed.sum(1), torch.ones(8))
    assert torch.equal(data.batches.to_network(batch).labels, batch.labels)


def test_presize_goes_from_the_stored_images_to_the_size_that_the_network_sees() -> None:
    data = toy(augment=Presize(), size=4)
    batch = first_batch(data)
    draws = Draws(batch.indices, seed=0, epoch=0)
    expected = Presize().sized(batch.images.permute(0, 3, 1, 2), (4, 4), draws) / 255
    assert torch.equal(data.batches.to_network(batch, training=True).images, expected)


@pytest.mark.parametrize("normalize", ["none", "dataset"])
def test_channels_last_batches_hold_the_same_values(normalize: str) -> None:
    data = toy(normalize=normalize)
    batch = first_batch(data)
    before = data.batches.to_network(batch).images
    data.batches.lay_out(torch.channels_last)
    after = data.batches.to_network(batch).images
    assert before.is_contiguous()
    assert after.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", ["tiny_imagenet", "image_folder", "mnist", "cifar10", "cifar100"])
def test_without_the_cache_batches_are_the_same(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path, per_class=4)
    options = ["data.normalize=imagenet", "data.batch_size=7", "data.num_workers=0"]
    options.append("data.val_fraction=0.25")
    options += [f"data.root={tmp_path}/photos"] if name == "image_folder" else []
    cached = from_yaml(name, tmp_path, *options)
    assert (tmp_path / ".cache").is_dir()
    direct = from_yaml(name, tmp_path, *options, "data.cache=false")
    assert direct.spec == cached.spec
    assert direct.fingerprint == cached.fingerprint
    for one, other in zip(cached.train_dataloader(), direct.train_dataloader(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    for one, other in zip(cached.val_dataloader(), direct.val_dataloader(), strict=True):
        first, second = cached.batches.to_network(one), direct.batches.to_network(other)
        assert torch.equal(first.images, second.images)


@pytest.mark.parametrize(("num_workers", "each"), [(0, 0), (2, 1), (8, 2)])
def test_devices_share_the_processes_that_decode(
    num_workers: int, each: int, tmp_path: Path
) -> None:
    make_tiny_imagenet(tmp_path)
    options = ["data.cache=false", "data.normalize=imagenet", f"data.num_workers={num_workers}"]
    data = from_yaml("tiny_imagenet", tmp_path, *options)
    data.batches.train_with(SimpleNamespace(num_devices=4))  # type: ignore[arg-type]
    assert data.batches._fetch("train", torch.device("cpu")).num_workers == each  # type: ignore[union-attr]


def test_without_the_cache_files_have_no_statistics(tmp_path: Path) -> None:
    make_tiny_imagenet(tmp_path)
    with pytest.raises(UserError, match=r"type data\.normalize=imagenet"):
        from_yaml("tiny_imagenet", tmp_path, "data.cache=false", "data.normalize=dataset")


def test_presize_resizes_files_of_any_dataset(tmp_path: Path) -> None:
    make_tiny_imagenet(tmp_path)
    data = from_yaml("tiny_imagenet", tmp_path, "data.presize=16")
    assert (data.spec.height, data.spec.width) == (16, 16)
    assert first_batch(data).images.shape == (24, 16, 16, 3)


def test_presize_is_refused_where_there_are_no_files(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    with pytest.raises(UserError, match=r"data\.presize: .* 28×28"):
        from_yaml("mnist", tmp_path, "data.presize=16", "data.val_fraction=0")


# What a run asks --------------------------------------------------------------------------------


def test_majority_accuracy_is_the_share_of_the_most_frequent_class() -> None:
    assert toy().majority_accuracy("train") == 0.5
    assert toy(THREE).majority_accuracy("test") == pytest.approx(1 / 3)
    assert toy(classes=["ant", "bee"]).majority_accuracy("val") == 0.6


def test_fingerprint_is_the_same_for_the_same_data() -> None:
    options: list[dict[str, Any]] = [
        {}, {"seed": 5}, {"batch_size": 3}, {"normalize": "imagenet"}, {"augment": Flip()},
    ]  # fmt: skip
    assert len({toy(val_fraction=0.2, **option).fingerprint for option in options}) == 1


def test_fingerprint_tells_other_data_classes_and_splits() -> None:
    options: list[dict[str, Any]] = [
        {}, {"val_fraction": 0.3}, {"split_seed": 1}, {"classes": ["ant", "bee"]},
        {"classes": ["bee", "ant"]}, {"channels": 1}, {"counts": THREE}, {"counts": TRAIN},
    ]  # fmt: skip
    found = {toy(**({"val_fraction": 0.2} | option)).fingerprint for option in options}
    assert len(found) == len(options)


def test_fingerprint_tells_changed_files(tmp_path: Path) -> None:
    make_image_folder(tmp_path)
    options = ("image_folder", tmp_path, f"data.root={tmp_path}/photos")
    before = from_yaml(*options).fingerprint
    assert from_yaml(*options).fingerprint == before
    (tmp_path / "photos" / "train" / "cat" / "cat_0.png").unlink()
    changed = from_yaml(*options)
    assert changed.fingerprint != before
    assert len(changed.splits["train"].rows) == 11


# Getting the data -------------------------------------------------------------------------------


def test_an_archive_is_unpacked_from_a_url(tmp_path: Path) -> None:
    make_cifar10(tmp_path / "made")
    archive = tmp_path / "repacked.tar.gz"
    with tarfile.open(archive, "w:gz") as tarred:
        tarred.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    options = [f"data.url={archive.as_uri()}", "data.val_fraction=0.25"]
    with pytest.raises(UserError, match=f"data.sha256={sha256}"):
        from_yaml("cifar10", tmp_path / "data", *options)
    data = from_yaml("cifar10", tmp_path / "data", *options, f"data.sha256={sha256}")
    assert len(data.splits["train"].rows) == 30
    archive.unlink()  # needed no more
    from_yaml("cifar10", tmp_path / "data", *options, f"data.sha256={sha256}")


def test_an_archive_of_something_else_is_told_with_what_was_expected(tmp_path: Path) -> None:
    make_mnist(tmp_path / "made")
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tarred:
        tarred.add(tmp_path / "made", "made")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="expected cifar-10-batches-py/ or cifar10/") as error:
        from_yaml("cifar10", tmp_path, f"data.url={archive.as_uri()}", f"data.sha256={sha256}")
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("url", ["https://example.invalid/set.rar", "file:///set"])
def test_a_url_that_is_no_archive_is_refused_before_anything_is_fetched(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(UserError, match=r"data\.url=.*expected an archive .*\.zip"):
        from_yaml("tiny_imagenet", tmp_path, f"data.url={url}", "data.sha256=00")


def test_embedded_data_leaves_no_files(tmp_path: Path) -> None:
    from_yaml("digits", tmp_path / "data")
    from_yaml("synthetic", tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_images_that_fit_stay_on_the_device_and_give_the_same_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = list(toy().batches.loader("train", training=True))
    monkeypatch.setattr("glimpse.data.batches.fits_on_gpu", lambda num_bytes, device, taken: True)
    data = toy()
    cpu = torch.device("cpu")
    assert data.batches._fetch("train", cpu) is data.batches._fetch(
        "train", cpu
    )  # one copy, whoever asks
    for batch, other in zip(data.batches.loader("train", training=True), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch[:3], other[:3], strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_batches_reach_the_gpu_from_its_memory_or_from_pinned_memory(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glimpse.data.loader.GPU_SHARE", share)
    data, device = toy(), torch.device("cuda", 0)
    rows = data.batches._fetch(data.splits["train"].part, device)
    [batch] = list(rows(iter([torch.tensor([2, 0])])))
    assert (batch.images.device.type == "cuda") == (share > 0)
    assert batch.images.is_pinned() == (share == 0)
    moved = data.transfer_batch_to_device(batch, device, 0)
    assert moved.images.device == moved.labels.device == moved.indices.device == device
