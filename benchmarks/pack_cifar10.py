"""Pack CIFAR-10 small enough to carry to a machine without a network: 60,000 WebP files in one zip.

    python benchmarks/pack_cifar10.py data cifar10.zip          # 29 MB in place of 180
    unzip cifar10.zip -d <data_dir>                             # then data=cifar10 reads them

WebP at this quality loses detail, so accuracies are not those of the original images. benchmarks/gpu.py unpacks
the file itself, and gives the same images to whatever it compares.
"""

import argparse
import io
import zipfile
from pathlib import Path

from hydra import compose
from PIL import Image
from rich.progress import track
from tasks import composing

from glimpse.assembly import build_data


def main() -> None:
    """Read, encode, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, help="a folder with CIFAR-10")
    parser.add_argument("out", type=Path, help="the zip to write")
    parser.add_argument("--quality", type=int, default=75, help="of WebP, 0 to 100")
    given = parser.parse_args()
    with composing(), zipfile.ZipFile(given.out, "w", zipfile.ZIP_STORED) as packed:
        chosen = ["data=cifar10", f"data_dir={given.data_dir}", "data.val_fraction=0"]
        data = build_data(compose("train", overrides=chosen))
        for part, split in (("train", "train"), ("test", "val")):
            pairs = [
                pair
                for batch in data.batches.loader(split)
                for pair in zip(batch.images.numpy(), batch.labels.tolist(), strict=True)
            ]
            for number, (image, label) in enumerate(track(pairs, description=part)):
                file = io.BytesIO()
                Image.fromarray(image).save(file, "webp", quality=given.quality, method=4)
                name = f"cifar10/{part}/{data.spec.class_names[label]}/{number:05}.webp"
                packed.writestr(name, file.getvalue())
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
