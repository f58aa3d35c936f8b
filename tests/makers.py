"""Small copies of every downloaded dataset in its own format, for tests that never download.

`MAKERS[<name of data YAML>](data_dir, per_class=4)` writes the dataset where its reader looks for it:
`per_class` training images of each class and half as many held-out ones. Pixels are noise around a
shade of the class, so that a network can learn them; the same call writes the same files.

Left out: their size, and their real classes where names are in the files (Tiny ImageNet has 6 of
200, two of which share a name, CIFAR-100 still 100).
"""

import gzip
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# wnid: the line of words.txt; not in alphabetical order, as in the original
TINY_CLASSES = {
    "n02124075": "Egyptian cat",
    "n04067472": "reel",
    "n04540053": "volleyball",
    "n04099969": "rocking chair, rocker",
    "n03126707": "crane",
    "n02012849": "crane",
}
BREEDS = ("Abyssinian", "great_pyrenees", "pug")
PHOTO_CLASSES = ("cat", "dog", "owl")


def shades(
    labels: Sequence[int], num_classes: int, *, size: int, channels: int, seed: int
) -> NDArray[np.uint8]:
    """(N, size, size, channels): noise around one brightness for each label."""
    random = np.random.default_rng(seed)
    level = 40 + 175 * np.asarray(labels) / num_classes
    noise = random.normal(0, 12, (len(labels), size, size, channels))
    return (level[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)


def num_heldout(per_class: int) -> int:
    """Held-out images of a class, where the training set has `per_class`."""
    return max(1, per_class // 2)


def save_image(pixels: NDArray[np.uint8], path: Path) -> None:
    """(H, W, C) in the format of the path's ending; one channel becomes a grey file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def make_tiny_imagenet(data_dir: Path, *, per_class: int = 4) -> None:
    """`tiny-imagenet-200/` as in the archive; each class's first training image is grey."""
    root = data_dir / "tiny-imagenet-200"
    wnids = list(TINY_CLASSES)
    for label, wnid in enumerate(wnids):
        pixels = shades([label] * per_class, len(wnids), size=64, channels=3, seed=label)
        for number, image in enumerate(pixels):
            image = image[..., :1] if number == 0 else image
            save_image(image, root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
        boxes = "".join(f"{wnid}_{number}.JPEG\t0\t0\t63\t63\n" for number in range(per_class))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    labels = [label for _ in range(num_heldout(per_class)) for label in range(len(wnids))]
    lines = []
    for number, image in enumerate(shades(labels, len(wnids), size=64, channels=3, seed=1000)):
        save_image(image, root / "val" / "images" / f"val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{wnids[labels[number]]}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    for number, image in enumerate(shades([0, 1], 2, size=64, channels=3, seed=2000)):
        save_image(image, root / "test" / "images" / f"test_{number}.JPEG")  # they have no labels
    (root / "wnids.txt").write_text("\n".join(wnids))
    words = TINY_CLASSES | {"n00001740": "entity"}  # words.txt names all of WordNet
    (root / "words.txt").write_text("".join(f"{w}\t{n}\n" for w, n in sorted(words.items())))


def make_cifar10(data_dir: Path, *, per_class: int = 4) -> None:
    """`cifar-10-batches-py/`: five pickled training batches, the test batch and the names."""
    root = data_dir / "cifar-10-batches-py"
    labels = [label for _ in range(per_class) for label in range(10)]
    pixels = _planes(shades(labels, 10, size=32, channels=3, seed=0))
    for number, rows in enumerate(np.array_split(np.arange(len(labels)), 5), 1):
        batch = {
            "batch_label": f"training batch {number} of 5",
            "labels": [labels[row] for row in rows],
            "data": pixels[rows],
            "filenames": [f"image_{row}.png" for row in rows],
        }
        python2_pickle(batch, root / f"data_batch_{number}")
    labels = [label for _ in range(num_heldout(per_class)) for label in range(10)]
    test = {
        "batch_label": "testing batch 1 of 1",
        "labels": labels,
        "data": _planes(shades(labels, 10, size=32, channels=3, seed=1000)),
        "filenames": [f"test_{row}.png" for row in range(len(labels))],
    }
    python2_pickle(test, root / "test_batch")
    meta = {"num_cases_per_batch": 10000, "label_names": list(CIFAR10_CLASSES), "num_vis": 3072}
    python2_pickle(meta, root / "batches.meta")


def make_cifar10_images(data_dir: Path, *, per_class: int = 4) -> None:
    """`cifar10/{train,test}/<class>/*.jpg`, which cifar10 and cifar2 read in place of the archive."""
    for label, name in enumerate(CIFAR10_CLASSES):
        for part, number in (("train", per_class), ("test", num_heldout(per_class))):
            pixels = shades([label] * number, 10, size=32, channels=3, seed=label)
            for row, image in enumerate(pixels):
                save_image(image, data_dir / "cifar10" / part / name / f"{row:04}.jpg")


def make_cifar100(data_dir: Path, *, per_class: int = 4) -> None:
    """`cifar-100-python/`: train, test and meta, with fine and coarse labels."""
    root = data_dir / "cifar-100-python"
    for file, number, seed in (("train", per_class, 0), ("test", num_heldout(per_class), 1000)):
        labels = [label for _ in range(number) for label in range(100)]
        batch = {
            "filenames": [f"{file}_{row}.png" for row in range(len(labels))],
            "batch_label": f"{file} batch 1 of 1",
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
            "data": _planes(shades(labels, 100, size=32, channels=3, seed=seed)),
        }
        python2_pickle(batch, root / file)
    meta = {
        "fine_label_names": [f"fine_{label:02}" for label in range(100)],
        "coarse_label_names": [f"coarse_{label:02}" for label in range(20)],
    }
    python2_pickle(meta, root / "meta")


def make_mnist(data_dir: Path, *, per_class: int = 4) -> None:
    """`MNIST/raw/*.gz`."""
    _make_idx(data_dir / "MNIST" / "raw", per_class)


def make_fashion_mnist(data_dir: Path, *, per_class: int = 4) -> None:
    """`FashionMNIST/raw/*.gz`."""
    _make_idx(data_dir / "FashionMNIST" / "raw", per_class)


def make_image_folder(data_dir: Path, *, per_class: int = 4) -> None:
    """`photos/{train,val}/<class>/*.png`, 20 pixels high and 24 wide; data.root is data_dir/photos."""
    for label, name in enumerate(PHOTO_CLASSES):
        for part, number in (("train", per_class), ("val", num_heldout(per_class))):
            pixels = shades([label] * number, len(PHOTO_CLASSES), size=24, channels=3, seed=label)
            for row, image in enumerate(pixels[:, :20]):
                save_image(image, data_dir / "photos" / part / name / f"{name}_{row}.png")


def make_pets(data_dir: Path, *, per_class: int = 4) -> None:
    """`oxford-iiit-pet/images/<breed>_<number>.jpg` of two sizes, with what the archive has beside them."""
    folder = data_dir / "oxford-iiit-pet" / "images"
    for label, breed in enumerate(BREEDS):
        pixels = shades([label] * per_class, len(BREEDS), size=48, channels=3, seed=label)
        for row, image in enumerate(pixels):
            save_image(image[: 40 - 8 * (row % 2)], folder / f"{breed}_{row + 1}.jpg")
    odd = Image.open(folder / f"{BREEDS[0]}_1.jpg")
    odd.convert("RGBA").save(folder / f"{BREEDS[0]}_1.jpg", format="PNG")
    odd.convert("P").save(folder / f"{BREEDS[0]}_2.jpg", format="GIF")
    (folder / f"._{BREEDS[0]}_1.jpg").write_bytes(b"Mac OS X")
    (folder / f"{BREEDS[0]}_1.mat").write_bytes(b"MATLAB")


def make_eurosat(data_dir: Path, *, per_class: int = 4) -> None:
    """`eurosat/2750/<class>/*.jpg`, as torchvision unpacks it: a set without a held-out part."""
    for label, name in enumerate(("Forest", "Highway", "River")):
        pixels = shades([label] * per_class, 3, size=64, channels=3, seed=label)
        for row, image in enumerate(pixels):
            save_image(image, data_dir / "eurosat" / "2750" / name / f"{name}_{row + 1}.jpg")


def _make_photographs(root: Path, wnids: Sequence[str], per_class: int) -> None:
    """`{train,val}/<wnid>/*.JPEG` of two sizes, as the archives of Imagenette and Imagewoof have them."""
    for label, wnid in enumerate(wnids):
        for part, number in (("train", per_class), ("val", num_heldout(per_class))):
            pixels = shades([label] * number, len(wnids), size=48, channels=3, seed=label)
            for row, image in enumerate(pixels):
                save_image(image[: 48 - 8 * (row % 2)], root / part / wnid / f"{wnid}_{row}.JPEG")


def make_imagenette(data_dir: Path, *, per_class: int = 4) -> None:
    """`imagenette2-160/`: three of its classes."""
    wnids = ("n01440764", "n02102040", "n02979186")
    _make_photographs(data_dir / "imagenette2-160", wnids, per_class)
    (data_dir / "imagenette2-160" / "noisy_imagenette.csv").write_text("path,noisy_labels_0\n")


def make_imagewoof(data_dir: Path, *, per_class: int = 4) -> None:
    """`imagewoof2-160/`: three of its breeds."""
    wnids = ("n02086240", "n02087394", "n02088364")
    _make_photographs(data_dir / "imagewoof2-160", wnids, per_class)
    (data_dir / "imagewoof2-160" / "noisy_imagewoof.csv").write_text("path,noisy_labels_0\n")


def make_svhn(data_dir: Path, *, per_class: int = 4) -> None:
    """`train_32x32.mat` and `test_32x32.mat`; the digit 0 has the label 10. Their checksums differ
    from the original's, which torchvision wants: see `any_checksum` in conftest.py."""
    data_dir.mkdir(parents=True, exist_ok=True)
    for part, number in (("train", per_class), ("test", num_heldout(per_class))):
        digits = [digit for _ in range(number) for digit in range(10)]
        images = shades(digits, 10, size=32, channels=3, seed=number).transpose(1, 2, 3, 0)
        labels = np.array([digit or 10 for digit in digits], np.uint8)[:, None]
        savemat(data_dir / f"{part}_32x32.mat", {"X": images, "y": labels})


def write_table(path: Path, labels: Sequence[int], num_classes: int, *, seed: int) -> None:
    """A table of 28×28 grey images, as Sign Language MNIST has it."""
    images = shades(labels, num_classes, size=28, channels=1, seed=seed).reshape(len(labels), -1)
    header = ",".join(["label", *(f"pixel{i + 1}" for i in range(images.shape[1]))])
    rows = [",".join(map(str, [label, *row])) for label, row in zip(labels, images, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def make_csv(data_dir: Path, *, per_class: int = 4) -> None:
    """`table.csv` of three classes, undivided."""
    write_table(data_dir / "table.csv", [0, 1, 2] * per_class, 3, seed=0)


def make_huggingface(data_dir: Path, *, per_class: int = 4) -> None:
    """`photos.parquet`: the bytes of small PNGs and labels of three classes, undivided."""
    labels = [0, 1, 2] * per_class
    content = []
    for image in shades(labels, 3, size=24, channels=3, seed=0):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        content.append(file.getvalue())
    data_dir.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"image": content, "label": labels})
    pyarrow.parquet.write_table(table, data_dir / "photos.parquet")


def make_sign_mnist(data_dir: Path, *, per_class: int = 4) -> None:
    """The two tables of Kaggle; labels 9 and 25 do not occur."""
    letters = [label for label in range(25) if label != 9]
    for name, count in (("train", per_class), ("test", num_heldout(per_class))):
        path = data_dir / "sign-language-mnist" / f"sign_mnist_{name}.csv"
        write_table(path, letters * count, 26, seed=count)


MAKERS: dict[str, Callable[..., None]] = {
    "tiny_imagenet": make_tiny_imagenet,
    "cifar10": make_cifar10,
    "cifar2": make_cifar10,
    "cifar100": make_cifar100,
    "mnist": make_mnist,
    "fashion_mnist": make_fashion_mnist,
    "image_folder": make_image_folder,
    "pets": make_pets,
    "imagenette": make_imagenette,
    "imagewoof": make_imagewoof,
    "torchvision": make_eurosat,
    "svhn": make_svhn,
    "csv": make_csv,
    "huggingface": make_huggingface,
    "sign_mnist": make_sign_mnist,
}


def overrides(name: str, data_dir: Path) -> tuple[str, ...]:
    """What a dataset has to be told to find its small copy."""
    told = {
        "image_folder": (f"data.root={data_dir / 'photos'}", "data.presize=32"),
        "csv": (f"data.train={data_dir / 'table.csv'}",),
        "huggingface": (f"data.name={data_dir / 'photos.parquet'}",),
        **dict.fromkeys(("imagenette", "imagewoof", "pets"), ("data.presize=48", "data.size=40")),
        "torchvision": ("data.name=EuroSAT",),
    }
    return told.get(name, ())


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes strings as Python 2 did, as bytes of no known encoding: what `latin1` is there for."""

    def save_string(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        short = len(raw) < 256
        self.write(b"U" + bytes([len(raw)]) if short else b"T" + len(raw).to_bytes(4, "little"))
        self.write(raw)
        self.memoize(value)

    dispatch: ClassVar[dict[type, Any]] = {
        **pickle._Pickler.dispatch,  # type: ignore[attr-defined]
        str: save_string,
        bytes: save_string,
    }


def python2_pickle(content: Any, path: Path) -> None:
    """Write a pickle as Python 2 did: protocol 2, strings of bytes, the old name of numpy's core."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pickled = io.BytesIO()
    _Python2Pickler(pickled, 2).dump(content)
    path.write_bytes(
        pickled.getvalue().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    )


def write_idx(array: NDArray[np.uint8], path: Path, *, zipped: bool = True) -> None:
    """Write an array in MNIST's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content, compresslevel=1, mtime=0) if zipped else content)


def _make_idx(raw: Path, per_class: int) -> None:
    for part, number, seed in (("train", per_class, 0), ("t10k", num_heldout(per_class), 1000)):
        labels = [label for _ in range(number) for label in range(10)]
        images = shades(labels, 10, size=28, channels=1, seed=seed)[..., 0]
        write_idx(images, raw / f"{part}-images-idx3-ubyte.gz")
        write_idx(np.array(labels, np.uint8), raw / f"{part}-labels-idx1-ubyte.gz")


def _planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) as CIFAR stores it: (N, 3072), the red plane first."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
