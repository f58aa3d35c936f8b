"""`glimpse evaluate`, `confused`, `losses`, `predict`, `look`, `shift`, `export`, as a user types them."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from typer.testing import CliRunner

from conftest import Execute
from folders import rows_of
from glimpse import __version__, launch, load
from glimpse.cli.main import app, main
from glimpse.cli.predict import Format, predict
from glimpse.errors import UserError
from glimpse.runs.export import export_run
from glimpse.runs.predict import Answer, image_files, predict_files
from glimpse.runs.shift import shifted
from glimpse.runs.trained import TrainedRun
from makers import make_image_folder, save_image

COMMANDS = ("evaluate", "confused", "losses", "predict", "look", "shift", "export")


def glimpse(*arguments: object, exit_code: int = 0) -> tuple[str, str]:
    """Standard output and standard error."""
    result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    out, _ = glimpse(command, "--help")
    assert f"Example: glimpse {command} " in " ".join(out.split())


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['glimpse', 'evaluate', '--help']; "
        "from glimpse.cli.main import app; app()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "intervals" in found.stdout


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("evaluate",), "Missing argument 'RUN'"),
        (("evaluate", "run", "--split", "foo"), "'foo' is not one of 'train', 'val', 'test'"),
        (("losses", "run", "--num", "0"), "greater than or equal to 1"),
        (("evaluat", "run"), "evaluat"),
        (("trian",), "Did you mean 'train'?"),
        (("model=mlp",), "Did you mean glimpse train model=mlp?"),
        (("data", "info"), "Missing argument"),
    ],
)
def test_a_command_typed_wrongly_is_one_line(
    typed: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["glimpse", *typed])
    assert main() == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("error: ")
    assert err.endswith("--help for an example\n")
    assert err.count("\n") == 1


def test_main_passes_exit_codes_on(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["glimpse", "report", str(trained_run / "nothing")])
    assert main() == 1
    monkeypatch.setattr(sys, "argv", ["glimpse", "--help"])
    assert main() == 0
    assert {"evaluate", "train"} <= set(capsys.readouterr().out.split())
    monkeypatch.setattr(sys, "argv", ["glimpse", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"glimpse {__version__}\n"
    monkeypatch.setattr(
        launch, "main", lambda: 7 if sys.argv == ["glimpse", "-m", "seed=1,2"] else 0
    )
    monkeypatch.setattr(sys, "argv", ["glimpse", "train", "-m", "seed=1,2"])
    assert main() == 7
    monkeypatch.setattr(sys, "argv", ["glimpse"])
    assert main() == 2
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("predict", "export")])
def test_a_wrong_run_is_one_line(command: str, tmp_path: Path) -> None:
    _, err = glimpse(command, tmp_path / "nothing", exit_code=1)
    assert err.startswith("error: ")
    assert "no such run folder" in err
    assert err.count("\n") == 1


def test_evaluate_writes_what_it_prints(trained_run: Path, tmp_path: Path) -> None:
    out, _ = glimpse("evaluate", trained_run, "--split", "test", "--out", tmp_path / "e")
    summary = json.loads((trained_run / "summary.json").read_text())
    accuracy = summary["metrics"]["test/acc"]
    assert f"{accuracy:.4f}" in out
    scores = json.loads((tmp_path / "e" / "scores.json").read_text())
    assert scores["split"] == "test"
    assert scores["scores"]["acc"]["value"] == pytest.approx(accuracy)
    assert scores["majority_acc"] == pytest.approx(summary["majority_acc"])
    predictions = rows_of(tmp_path / "e" / "predictions.csv")
    assert len(predictions) == scores["num_images"]
    right = [row["actual"] == row["predicted"] for row in predictions]
    assert np.mean(right) == pytest.approx(accuracy)
    assert [row["rank"] == "1" for row in predictions] == right
    with (tmp_path / "e" / "confusion.csv").open(newline="") as file:
        matrix = np.array([list(map(int, row[1:])) for row in list(csv.reader(file))[1:]])
    assert matrix.sum() == len(predictions)
    assert matrix.trace() == sum(right)
    classes = rows_of(tmp_path / "e" / "classes.csv")
    assert [int(row["images"]) for row in classes] == matrix.sum(1).tolist()
    assert (tmp_path / "e" / "confusion.png").exists()


def test_evaluate_takes_the_test_set_where_there_is_one(trained_run: Path, tmp_path: Path) -> None:
    out, _ = glimpse("evaluate", trained_run, "--out", tmp_path)
    assert " test images" in out


def test_confused_lists_pairs_and_draws_them(trained_run: Path, tmp_path: Path) -> None:
    out, _ = glimpse("confused", trained_run, "--min", 2, "--out", tmp_path)
    counts = [int(line.split()[2]) for line in out.splitlines()[1:] if line[0].isdigit()]
    assert counts == sorted(counts, reverse=True)
    assert counts
    assert min(counts) >= 2
    assert (tmp_path / "most_confused.png").exists()
    out, _ = glimpse("confused", trained_run, "--min", 1000, "--out", tmp_path)
    assert "type --min 1" in out


def test_losses_are_the_highest(trained_run: Path, tmp_path: Path) -> None:
    out, _ = glimpse("losses", trained_run, "--num", 5, "--split", "test", "--out", tmp_path)
    found = [float(line.split()[0]) for line in out.splitlines()[1:6]]
    losses = np.sort(TrainedRun(trained_run).predict("test").losses)[::-1]
    assert found == pytest.approx(losses[:5].tolist(), abs=1e-3)
    assert "train[" in out  # the digits' test set is a part of their only one
    assert (tmp_path / "top_losses-test.png").exists()


@pytest.fixture
def photos(tmp_path: Path, trained_run: Path) -> Path:
    """Digits as image files of several formats and sizes, and one file that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    stored = TrainedRun(trained_run).data.stored_images("val", np.arange(3))
    Image.fromarray(stored[0, ..., 0]).save(folder / "as_it_is.png")
    Image.fromarray(stored[1, ..., 0]).resize((64, 48)).convert("RGB").save(folder / "large.jpg")
    Image.fromarray(stored[2, ..., 0]).convert("RGBA").save(folder / "more" / "alpha.webp")
    (folder / "broken.png").write_text("<html>")
    (folder / "notes.txt").write_text("not asked for")
    return folder


def test_predict_answers_for_every_image_that_can_be_read(photos: Path, trained_run: Path) -> None:
    out, err = glimpse("predict", trained_run, photos, "--format", "json", exit_code=1)
    answers = {Path(row["image"]).name: row["top"] for row in json.loads(out)}
    assert set(answers) == {"as_it_is.png", "large.jpg", "alpha.webp"}
    assert "broken.png is not an image" in err
    assert "1 of 4 images could not be predicted" in err
    expected = TrainedRun(trained_run).predict("val")
    [first, *_] = answers["as_it_is.png"]
    assert first["class"] == expected.class_names[expected.predicted[0]]
    assert first["probability"] == pytest.approx(expected.confidence[0], abs=1e-5)
    assert len(answers["large.jpg"]) == 5
    probabilities = [answer["probability"] for answer in answers["large.jpg"]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_the_first_of_equal_classes_is_predicted_whatever_the_number_of_answers(
    photos: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Predictions.predicted` does; in bf16, classes are often equal."""
    run = TrainedRun(trained_run)
    equal = torch.tensor([[0.1, 0.4, 0.4, 0.05, 0.05] + [0.0] * 5])
    monkeypatch.setattr(run, "probabilities", lambda images: equal.expand(len(images), -1))
    for top in (1, 2, 10):
        [answer] = predict_files(run, [photos / "large.jpg"], top=top)
        assert [name for name, _ in answer.top][:2] == list(run.spec.class_names[1:3])[:top]


def test_files_are_decoded_a_little_ahead_and_answered_in_order(
    photos: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glimpse.runs.predict.PREDICTED_TOGETHER", 2)
    files = sorted(photos.iterdir()) * 4
    one, several = (
        load(trained_run, overrides=[f"data.num_workers={number}"]) for number in (1, 3)
    )
    expected = list(predict_files(one, files, top=2))
    assert [answer.path for answer in expected] == files
    assert list(predict_files(several, files, top=2)) == expected
    read: list[Path] = []
    original = several.read_image
    monkeypatch.setattr(several, "read_image", lambda path: read.append(path) or original(path))
    answers = predict_files(several, files, top=2)
    assert next(answers) == expected[0]
    assert len(read) <= 6 < len(files)
    answers.close()


@pytest.mark.parametrize("output_format", ["csv", "json", "table"])
def test_what_was_predicted_before_a_stop_is_there(
    output_format: str,
    photos: Path,
    trained_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*arguments: object, **named: object) -> Iterator[Answer]:
        yield Answer(photos / "large.jpg", (("1", 0.75),))
        yield Answer(photos / "broken.png", error="it is broken")
        yield Answer(photos / "alpha.webp", (("2", 0.5),))
        raise KeyboardInterrupt

    monkeypatch.setattr("glimpse.runs.predict.predict_files", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict(trained_run, [photos], output_format=Format(output_format))
    out, err = capsys.readouterr()
    found = {
        "csv": lambda: [row["class"] for row in csv.DictReader(out.splitlines())],
        "json": lambda: [row["top"][0]["class"] for row in json.loads(out)],
        "table": out.split,
    }[output_format]()
    assert found == ([] if output_format == "table" else ["1", "2"])
    assert err == "error: it is broken\n"


def test_predict_as_csv_and_table(photos: Path, trained_run: Path) -> None:
    out, _ = glimpse("predict", trained_run, photos / "large.jpg", "--format", "csv", "--top", 2)
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2"]
    out, _ = glimpse("predict", trained_run, photos / "large.jpg")
    assert f"{rows[0]['class']} {float(rows[0]['probability']):.3f}" in out


def test_predict_refuses_what_is_not_there(tmp_path: Path, trained_run: Path) -> None:
    _, err = glimpse("predict", trained_run, tmp_path / "none.png", exit_code=1)
    assert "no such file or folder" in err
    _, err = glimpse("predict", trained_run, tmp_path, exit_code=1)
    assert "no image file in this folder" in err
    assert image_files([trained_run / "summary.json"]).files == [trained_run / "summary.json"]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("t.csv", "glimpse evaluate <run> --data="),
        ("photos.ZIP", "unpack it"),
        ("digits.npy", "predict takes arrays"),
    ],
)
def test_predict_says_what_to_do_with_other_files(
    name: str, remedy: str, tmp_path: Path, trained_run: Path
) -> None:
    (tmp_path / name).write_bytes(b"a")
    _, err = glimpse("predict", trained_run, tmp_path / name, exit_code=1)
    assert f"{name} is not an image" in err
    assert remedy in err


def test_predict_answers_for_the_files_that_exist(
    photos: Path, trained_run: Path, tmp_path: Path
) -> None:
    out, err = glimpse(
        "predict", trained_run, photos / "large.jpg", photos / "none.png", exit_code=1
    )
    assert "large.jpg" in out
    assert "none.png" in err
    empty = tmp_path / "empty"
    empty.mkdir()
    out, err = glimpse("predict", trained_run, empty, photos / "large.jpg", exit_code=1)
    assert "large.jpg" in out
    assert "no image file in this folder" in err


def test_predict_takes_the_way_of_the_runs_own_images(execute: Execute, photos: Path) -> None:
    """Stored at 8 pixels, seen at 16: a large file goes through 8 as well."""
    folder = execute(
        "data.size=16", "model=linear", "trainer=cpu", "trainer.max_epochs=1",
        "callbacks.pictures=null",
    )  # fmt: skip
    trained = TrainedRun(folder)
    pixels = trained.read_image(photos / "large.jpg")
    assert pixels.shape == (8, 8, 1)
    seen = trained.to_network(torch.from_numpy(pixels[None]))
    assert seen.shape == (1, 1, 16, 16)


@pytest.mark.parametrize("digit", [3, 8])
def test_other_images_may_be_of_one_class(trained_run: Path, tmp_path: Path, digit: int) -> None:
    trained = TrainedRun(trained_run)
    chosen = np.flatnonzero(trained.data.labels("val") == digit)[:9]
    lines = ["path,label"]
    for number, image in enumerate(trained.data.stored_images("val", chosen)):
        save_image(image, tmp_path / "new" / str(digit) / f"{number}.png")
        lines.append(f"new/{digit}/{number}.png,{digit}")
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")
    right = trained.predict_split("val").correct[chosen].mean()
    for name in ("new", "new.csv"):
        glimpse("evaluate", trained_run, "--data", tmp_path / name, "--out", tmp_path / "s")
        written = json.loads((tmp_path / "s" / "scores.json").read_text())
        assert written["scores"]["acc"]["value"] == pytest.approx(right)


def test_the_table_of_other_images_may_need_settings(trained_run: Path, tmp_path: Path) -> None:
    image = TrainedRun(trained_run).data.stored_images("val", np.arange(1))[0]
    save_image(image, tmp_path / "imgs" / "one.png")
    (tmp_path / "t.csv").write_text("path,label\none,3\n")
    table = ("evaluate", trained_run, "--data", tmp_path / "t.csv", "--out", tmp_path / "s")
    _, err = glimpse(*table, exit_code=1)
    assert "--set data.folder=imgs" in err
    settings = ("--set", "data.folder=imgs", "--set", "data.suffix=.png")
    glimpse(*table, *settings)
    assert json.loads((tmp_path / "s" / "scores.json").read_text())["num_images"] == 1
    _, err = glimpse(*table, "--set", "data.label=@x", exit_code=1)
    assert "--set data.label=@x: expected a value in YAML" in err


def test_other_images_of_the_same_name_do_not_replace_earlier_scores(
    execute: Execute, tmp_path: Path
) -> None:
    run = execute("model=linear", "trainer=cpu", "trainer.max_epochs=1")
    image = TrainedRun(run).data.stored_images("val", np.arange(1))[0]
    for place in ("a", "b", "a"):
        save_image(image, tmp_path / place / "new" / "3" / "0.png")
        glimpse("evaluate", run, "--data", tmp_path / place / "new")
    scored = {
        path.parent.name: json.loads(path.read_text())["data"]
        for path in (run / "evaluation").glob("*/scores.json")
    }
    assert scored == {
        "on-new": str(tmp_path / "a" / "new"),
        "on-new-2": str(tmp_path / "b" / "new"),
    }


def test_other_images_are_scored_with_the_classes_of_the_run(
    trained_run: Path, tmp_path: Path
) -> None:
    """A folder or a table with two of the ten digits; its labels stay those of the run."""
    trained = TrainedRun(trained_run)
    labels = trained.data.labels("val")
    chosen = np.flatnonzero((labels == 3) | (labels == 8))[:20]
    pixels = trained.data.stored_images("val", chosen)
    lines = ["path,label"]
    for number, (image, label) in enumerate(zip(pixels, labels[chosen], strict=True)):
        save_image(image, tmp_path / "new" / str(label) / f"{number}.png")
        lines.append(f"new/{label}/{number}.png,{label}")
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")
    right = trained.predict_split("val").correct[chosen].mean()
    for name in ("new", "new.csv"):
        out, _ = glimpse(
            "evaluate", trained_run, "--data", tmp_path / name, "--out", tmp_path / "s"
        )
        assert f"20 images of {tmp_path / name}" in out
        written = json.loads((tmp_path / "s" / "scores.json").read_text())
        assert written["scores"]["acc"]["value"] == pytest.approx(right)
        assert written["data"] == str(tmp_path / name)
        assert (tmp_path / "s" / "predictions.csv").read_text().count("\n") == 21
    (tmp_path / "new" / "3").rename(tmp_path / "new" / "three")
    _, err = glimpse("evaluate", trained_run, "--data", tmp_path / "new", exit_code=1)
    assert "three is not a class of the network (0, 1, 2, 3, 4 …)" in err
    _, err = glimpse("evaluate", trained_run, "--data", tmp_path / "gone", exit_code=1)
    assert "no such folder or table" in err
    divided = tmp_path / "divided"
    for part in ("train", "val"):
        shutil.copytree(tmp_path / "new", divided / part)
    (divided / "val" / "three").rename(divided / "val" / "3")
    (divided / "train" / "three").rename(divided / "train" / "3")
    _, err = glimpse("evaluate", trained_run, "--data", divided, exit_code=1)
    assert "these images are divided into splits" in err
    _, err = glimpse("evaluate", trained_run, "--data", divided, "--split", "val", exit_code=1)
    assert "leave out --split" in err


def test_look_draws_kernels_layers_and_grad_cam(
    trained_run: Path, photos: Path, tmp_path: Path
) -> None:
    out, _ = glimpse("look", trained_run, photos / "large.jpg", "--out", tmp_path / "look")
    assert "large.jpg: predicted" in out
    names = {path.name for path in (tmp_path / "look").iterdir()}
    assert names == {"first_layer.png", "layers.png", "grad_cam.png"}
    out, _ = glimpse("look", trained_run, "--position", 4, "--class", "7", "--out", tmp_path / "l")
    assert "validation image 4" in out
    _, err = glimpse("look", trained_run, "--class", "seven", "--out", tmp_path, exit_code=1)
    assert "seven" in err
    _, err = glimpse("look", trained_run, "--position", 99999, "--out", tmp_path, exit_code=1)
    assert "expected less than" in err


def test_look_at_a_network_without_convolutions(execute: Execute, tmp_path: Path) -> None:
    folder = execute("model=mlp", "trainer=cpu", "trainer.max_epochs=1", "callbacks.pictures=null")
    out, _ = glimpse("look", folder)
    assert "no Grad-CAM" in out
    assert (folder / "look" / "first_layer.png").exists()


def test_shift_plots_every_run(trained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "shift.png"
    out, _ = glimpse("shift", trained_run, "--max", 2, "--num", 100000, "--out", path)
    accuracies = [float(cell) for cell in out.splitlines()[1].split()[1:]]
    summary = json.loads((trained_run / "summary.json").read_text())
    assert accuracies[0] == pytest.approx(summary["metrics"]["val/acc"], abs=1e-4)
    assert accuracies[2] < accuracies[0]
    assert path.exists()
    both = [trained_run / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    out, _ = glimpse("shift", *both, "--max", 1, "--num", 20, "--out", path)
    assert len(out.splitlines()) == 4  # a header, two rows, and the file
    _, err = glimpse("shift", trained_run, "--out", tmp_path / "shift.pdf", exit_code=1)
    assert "ends in .png" in err


def test_shift_writes_into_the_first_runs_folder(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    out, _ = glimpse("shift", run, "--max", 1, "--num", 20)
    assert f"written: {run / 'figures' / 'shift.png'}" in out
    assert (run / "figures" / "shift.png").is_file()
    assert not list(elsewhere.iterdir())


def test_pictures_are_not_written_through_a_link(trained_run: Path, tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("figures"))
    (run / "figures").symlink_to(elsewhere)
    (run / "evaluation").symlink_to(elsewhere)
    for command in ("losses", "evaluate"):
        _, err = glimpse(command, run, exit_code=1)
        assert "is a link that leads out of" in err
    assert not list(elsewhere.iterdir())


def test_the_checkpoints_statistics_are_used_whatever_data_is_given(
    execute: Execute, tmp_path: Path
) -> None:
    """`predict` and `evaluate` see the same images alike, also of darker data."""
    photos = tmp_path / "photos"
    random = np.random.default_rng(0)
    for label, name in enumerate(("a", "b")):
        for number in range(20):
            pixels = random.integers(0, 100 + 100 * label, (8, 8, 3), np.uint8)
            path = photos / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    run = execute(
        "data=image_folder", f"data.root={photos}", "data.normalize=dataset", "model=linear",
        "trainer=cpu", "trainer.max_epochs=3", "optimizer.lr=0.1",
    )  # fmt: skip
    dark = tmp_path / "dark"
    for path in photos.rglob("*.png"):
        darker = Image.open(path).point(lambda value: value // 3)
        (dark / path.parent.name).mkdir(parents=True, exist_ok=True)
        darker.save(dark / path.parent.name / path.name)
    glimpse("evaluate", run, "--split", "val", "--set", f"data.root={dark}", "--out", tmp_path)
    evaluated = rows_of(tmp_path / "predictions.csv")
    files = [row["image"] for row in evaluated]
    out, _ = glimpse("predict", run, *files, "--format", "csv", "--top", 1)
    predicted = list(csv.DictReader(out.splitlines()))
    for one, other in zip(evaluated, predicted, strict=True):
        assert one["predicted"] == other["class"]
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)
    found, _ = glimpse("shift", run, "--max", 1, "--set", f"data.root={dark}")
    accuracy = np.mean([row["actual"] == row["predicted"] for row in evaluated])
    assert f"{accuracy:.4f}" in found


@pytest.mark.parametrize("setting", ["data.normalize=none", "data.size=16", "data.presize=4"])
def test_what_the_network_sees_cannot_be_changed(trained_run: Path, setting: str) -> None:
    _, err = glimpse("evaluate", trained_run, "--set", setting, exit_code=1)
    assert setting in err
    assert "was trained with" in err


def test_shifted_moves_pixels_and_repeats_the_edge() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    moved = shifted(image, 1, 0)
    assert torch.equal(moved[0, 0, 1:], image[0, 0, :3])
    assert torch.equal(moved[0, 0, 0], image[0, 0, 0])
    moved = shifted(image, 0, -2)
    assert torch.equal(moved[0, 0, :, :2], image[0, 0, :, 2:])
    assert torch.equal(shifted(image, 0, 0), image)


def test_onnx_answers_as_the_network_does(trained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    out, _ = glimpse("export", trained_run, "--to", "onnx", "--out", path)
    assert "on 256 validation images: probabilities differ by at most" in out
    session = onnxruntime.InferenceSession(path)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == [str(digit) for digit in range(10)]
    assert "(N, 8, 8, 1) uint8, grey" in about["input"]
    trained = TrainedRun(trained_run)
    images = trained.data.stored_images("test", np.arange(7))  # another batch size than exported
    [found] = session.run(None, {"images": images})
    expected = trained.probabilities(torch.from_numpy(images)).numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["digits.onnx"]


def test_torch_export_answers_as_the_network_does(trained_run: Path, tmp_path: Path) -> None:
    """Also for a run in bf16, whose own answers are rounded."""
    path = tmp_path / "digits.pt2"
    in_bf16 = ("--set", "trainer.precision=bf16-mixed")
    out, _ = glimpse("export", trained_run, "--to", "torch_export", "--out", path, *in_bf16)
    assert "in fp32 on 256 validation images: probabilities differ by at most" in out
    assert "compared with what evaluate and predict compute, in bf16-mixed" in out
    extra = {"glimpse.json": ""}
    loaded = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["glimpse.json"])["class_names"][3] == "3"
    trained = TrainedRun(trained_run)
    images = torch.from_numpy(trained.data.stored_images("test", np.arange(7)))
    with torch.no_grad():
        assert torch.allclose(loaded(images), trained.probabilities(images), atol=1e-5)


class Branches(torch.nn.Module):
    """A forward that depends on the values of the images, which torch cannot export."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = images.flatten(1)[:, :10]
        return logits + 1 if logits.max() > 100 else logits


@pytest.mark.parametrize("target", ["onnx", "torch_export"])
def test_a_network_that_cannot_be_exported_is_one_line(
    trained_run: Path, tmp_path: Path, target: str, capfd: pytest.CaptureFixture[str]
) -> None:
    trained = TrainedRun(trained_run)
    trained.model = Branches()
    with pytest.raises(
        UserError, match=r"torch cannot export this network \(.*type --to safetensors"
    ):
        list(export_run(trained, tmp_path / "file", target=target))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


class Counts(torch.nn.Module):
    """A forward that asks for the number of images as tutorials do."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(len(images), -1)[:, :10]


def test_an_exporter_that_is_older_than_torch_is_named(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(*_arguments: object, **_options: object) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_9_0'")

    monkeypatch.setattr("torch.onnx.export", export)
    with pytest.raises(
        UserError, match=r"torch_9_0'\): type pip install --upgrade onnx onnxscript"
    ):
        list(export_run(TrainedRun(trained_run), tmp_path / "file", target="onnx"))


@pytest.mark.parametrize("target", ["onnx", "torch_export"])
def test_a_network_that_counts_its_images_is_exported_for_any_number(
    trained_run: Path, tmp_path: Path, target: str
) -> None:
    trained = TrainedRun(trained_run)
    trained.model = Counts()
    [compared, _] = export_run(trained, tmp_path / "file.pt2", target=target)  # 32 at once
    assert "256 have the same class" in compared


def test_an_exported_file_resizes_as_the_run_does(execute: Execute, tmp_path: Path) -> None:
    small = ("data=synthetic", "data.shape=[3,20,20]", "data.size=16", "trainer.precision=32-true")
    run = execute(*small, "model=linear", "trainer=cpu", "trainer.max_epochs=1", "logger=none")
    trained = TrainedRun(run)
    lines = list(export_run(trained, tmp_path / "file.pt2", target="torch_export"))
    assert "compared with what evaluate and predict compute, in 32-true" in lines[1]
    loaded = torch.export.load(tmp_path / "file.pt2").module()
    images = torch.from_numpy(trained.data.stored_images("val", np.arange(7)))
    with torch.no_grad():
        assert torch.allclose(loaded(images), trained.probabilities(images), atol=3e-4)


def test_compare_tests_the_predictions(trained_run: Path, execute: Execute, tmp_path: Path) -> None:
    other = execute("model=linear", "trainer=cpu", "trainer.max_epochs=1", "optimizer.lr=0.0001")
    out, _ = glimpse("compare", trained_run, other, "--out", tmp_path / "c.png")
    answers = [TrainedRun(folder).predict("test").correct for folder in (trained_run, other)]
    counts = {
        "both correct": (answers[0] & answers[1]).sum(),
        "only the first correct": (answers[0] & ~answers[1]).sum(),
        "only the second correct": (~answers[0] & answers[1]).sum(),
        "both wrong": (~answers[0] & ~answers[1]).sum(),
    }
    cells = [line.split() for line in out.splitlines() if line]
    lines = {" ".join(words[:-1]): words[-1] for words in cells}
    assert {name: int(lines[name]) for name in counts} == counts
    p_value = binomtest(
        int(counts["only the first correct"]),
        int(counts["only the first correct"] + counts["only the second correct"]),
    ).pvalue
    assert f"p = {p_value:.3g}" in out
    elsewhere = execute(
        "data.split_seed=3", "model=linear", "trainer=cpu", "trainer.max_epochs=1",
        folder=tmp_path / "other",
    )  # fmt: skip
    out, _ = glimpse("compare", trained_run, elsewhere, "--out", tmp_path / "c.png")
    assert "no McNemar's test" in out
    assert "data.split_seed" in out
    _, err = glimpse("compare", trained_run, other, "--set", "data.dirr=3", exit_code=1)
    assert "data.dirr is not a key" in err
    _, err = glimpse("compare", trained_run / "checkpoints" / "best.ckpt", other, exit_code=1)
    assert "it is a file, expected a run folder" in err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("evaluate run data.root=x", "(data.root=x): type --set data.root=x"),
        ("evaluate run data.root=x seed=1", "type --set data.root=x --set seed=1"),
        ("look run {file} data.root=x", "(data.root=x): type --set data.root=x"),
        ("predict run {file} data.root=x", "expected a path: type --set data.root=x"),
        ("look run data.root=x", "expected a path: type --set data.root=x"),
        ("shift run data.root=x", "expected a path: type --set data.root=x"),
        ("compare run run data.root=x", "expected a path: type --set data.root=x"),
    ],
)
def test_a_setting_without_its_option_is_answered_with_it(
    typed: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a=b.png").touch()
    monkeypatch.setattr(sys, "argv", ["glimpse", *typed.format(file=tmp_path / "a=b.png").split()])
    assert main() == 1
    err = capsys.readouterr().err
    assert err.endswith(f"{said}\n")
    assert err.count("\n") == 1


def test_settings_to_type_have_their_option(execute: Execute, tmp_path: Path) -> None:
    make_image_folder(tmp_path / "images")
    run = execute(
        "data=image_folder", f"data.root={tmp_path / 'images' / 'photos'}", "data.presize=8", "model=linear",
        "trainer=cpu", "trainer.max_epochs=1",
    )  # fmt: skip
    shutil.rmtree(tmp_path / "images")
    _, err = glimpse("evaluate", run, exit_code=1)
    assert "no such folder; type --set data.root=<your images>" in err
    out, _ = glimpse("compare", run, run)
    assert "no McNemar's test" in out
    assert "type --set data.root=<your images>" in out


def test_data_that_has_changed_since_is_not_compared_on(execute: Execute, tmp_path: Path) -> None:
    make_image_folder(tmp_path / "images")
    root = tmp_path / "images" / "photos"
    words = ("data=image_folder", f"data.root={root}", "data.presize=8", "model=linear")
    words += ("trainer=cpu", "trainer.max_epochs=1", "data.val_fraction=0.2")
    before = execute(*words, folder=tmp_path / "before")
    larger = execute(*words, "data.presize=16", folder=tmp_path / "larger")
    out, _ = glimpse("compare", before, larger, "--out", tmp_path / "c.png")
    assert "only the first correct" in out  # the same images, stored at another size
    picture = next(root.rglob("*.png"))
    shutil.copy(picture, picture.with_name("another.png"))
    after = execute(*words, folder=tmp_path / "after")
    out, _ = glimpse("compare", before, after, "--out", tmp_path / "c.png")
    assert "no McNemar's test: the data or the splits of " in out
    assert "before have changed since it was trained" in out


def test_a_file_name_like_an_option_is_answered_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.png", "--dash.png"):
        Path(name).touch()
        monkeypatch.setattr(sys, "argv", ["glimpse", "predict", "run", name])
        assert main() == 1
        assert capsys.readouterr().err.endswith(f": type ./{name}\n")


def test_an_empty_name_is_not_the_current_folder(trained_run: Path) -> None:
    _, err = glimpse("predict", trained_run, "", exit_code=2)
    assert "found an empty name, expected an image file or a folder" in " ".join(err.split())
