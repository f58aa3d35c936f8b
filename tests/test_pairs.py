"""Every model trains on every dataset: a step on tiny copies of each set in its own format.

What a pair can break by itself is the shape of the images: a model meets a dataset only through its
`ImageSpec`. So by default every dataset trains one small model, and every model trains on the set with the
smallest images, which some refuse; the rest of the product is slow.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Execute, choices, slow
from glimpse.errors import UserError
from makers import MAKERS, overrides

TOO_LARGE_FOR = {
    ("digits", "convnet_template"): 22,
    ("digits", "sign_convnet"): 24,
    ("digits", "whitened_net"): 9,
}
WITHOUT_FILES = {"digits", "synthetic"}
SMALL_MODEL = "small_convnet"
SMALLEST = "digits"


def is_one_of_its_kind(data: str, model: str) -> bool:
    return model == SMALL_MODEL or data == SMALLEST


PAIRS = [
    pair if is_one_of_its_kind(*pair) else slow(*pair)
    for pair in itertools.product(choices("data"), choices("model"))
]


def test_every_dataset_is_made_here() -> None:
    assert set(choices("data")) == set(MAKERS) | WITHOUT_FILES


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a dataset's tiny copy, made once."""
    folders: dict[str, Path] = {}

    def of(data: str) -> Path:
        if data not in folders:
            folders[data] = tmp_path_factory.mktemp(data)
            if data in MAKERS:
                MAKERS[data](folders[data], per_class=10)
        return folders[data]

    return of


@pytest.mark.usefixtures("published_weights", "any_checksum")
@pytest.mark.parametrize("trainer", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("data", "model"), PAIRS)
def test_a_step(
    execute: Execute, data_dir: Callable[[str], Path], data: str, model: str, trainer: str
) -> None:
    folder = data_dir(data)
    options = (
        f"data={data}",
        f"model={model}",
        "data.batch_size=4",
        f"trainer={trainer}",
        *overrides(data, folder),
    )
    once = (*options, f"data_dir={folder}", "trainer.fast_dev_run=true", "data.num_workers=1")
    if (data, model) in TOO_LARGE_FOR:
        smallest = TOO_LARGE_FOR[data, model]
        with pytest.raises(UserError, match=f"{smallest}×{smallest} or larger"):
            execute(*once)
    else:
        assert (execute(*once) / "summary.json").exists()
