"""Reject several processes, for the callbacks that work in one."""

import lightning.pytorch as pl

from glimpse.errors import UserError


def require_one_process(trainer: pl.Trainer, callback: str) -> None:
    """Raise a UserError if several processes train.

    Args:
        trainer: The trainer of the run.
        callback: Its name in the group `callbacks`.
    """
    if trainer.world_size > 1:
        raise UserError(
            f"callbacks=[{callback}] requires one process, but there are {trainer.world_size}: "
            "type trainer.devices=1"
        )
