"""The lists of choices in Hydra's help and errors."""

import pytest
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.global_hydra import GlobalHydra

from glimpse.config import choices
from glimpse.config.compose import hydra_for


def test_choices_are_listed_without_a_copy_of_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    copy = CachingConfigRepository.__init__

    def counted(self: CachingConfigRepository, *args: object) -> None:
        copies.append(1)
        copy(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(CachingConfigRepository, "__init__", counted)
    with hydra_for():
        loader = GlobalHydra.instance().config_loader()
        names = loader.get_group_options("data")
        assert not copies
        assert choices._ORIGINAL_OF_LOADER(loader, "data") == names
    assert copies, "Hydra no longer copies its files for each list: choices.py need not prevent it"
