"""Folders named after classes."""

from pathlib import Path

import numpy as np
import pytest

from glimpse.data.folders import class_folders, listing, read_classes
from glimpse.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_images_by_any_usual_ending_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.jpeg", "c/d/e.Png", "[x]/f.webp", "notes.txt", "no_ending")
    names = [Path(name).relative_to(tmp_path).as_posix() for name in listing(tmp_path).names]
    assert names == ["[x]/f.webp", "a.jpeg", "b.JPG", "c/d/e.Png"]


def test_what_programs_leave_in_hidden_files_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "cat/._a.jpg", "cat/.ipynb_checkpoints/a.jpg", ".trash/b.jpg")
    assert listing(tmp_path).names == [str(tmp_path / "cat" / "a.jpg")]
    assert class_folders(tmp_path) == [tmp_path / "cat"]


def test_folders_may_be_links(tmp_path: Path) -> None:
    touch(tmp_path, "disk/cats/a.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "disk" / "cats")
    assert listing(tmp_path / "root").names == [str(tmp_path / "root" / "cat" / "a.jpg")]


def test_folders_are_found_without_looking_at_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "root/cat/1.jpg", "root/b\udcff/1.jpg", *(f"root/{i}.jpg" for i in range(9)))
    for name, target in (("dog", "root/cat"), ("gone", "nowhere"), ("loop", "root/loop")):
        (tmp_path / "root" / name).symlink_to(tmp_path / target)
    (tmp_path / "root" / "link.jpg").symlink_to(tmp_path / "root" / "1.jpg")
    is_dir, looked_at = Path.is_dir, []

    def counting(path: Path) -> bool:
        looked_at.append(path.name)
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", counting)
    found = [path.name for path in class_folders(tmp_path / "root")]
    assert found == ["b\udcff", "cat", "dog"]
    assert sorted(looked_at) == ["dog", "gone", "link.jpg", "loop", "root"]


def test_a_folder_that_links_to_itself_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg")
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    with pytest.raises(UserError, match=r"cat/again is a symbolic link that leads back"):
        listing(tmp_path)


def test_labels_are_positions_in_the_class_names(tmp_path: Path) -> None:
    touch(tmp_path, "ant/1.jpg", "ant/2.jpg", "bee/1.jpg", "loose.jpg")
    files = read_classes(tmp_path, ["bee", "cow", "ant"])
    assert [path.parent.name for path in files.paths] == ["ant", "ant", "bee"]
    np.testing.assert_array_equal(files.labels, [2, 2, 0])


def test_an_unknown_class_is_named_with_the_known(tmp_path: Path) -> None:
    touch(tmp_path, "ant/1.jpg", "wasp/1.jpg")
    with pytest.raises(UserError, match=r"wasp is not a class of the training set \(ant, bee\)"):
        read_classes(tmp_path, ["ant", "bee"])


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "ant/1.jpg", "bee/notes.txt")
    with pytest.raises(UserError, match="the class bee has no images"):
        read_classes(tmp_path, ["ant", "bee"])
