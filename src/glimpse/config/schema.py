"""The rules for configuration values beyond the YAML files: packages, types, ranges and choices."""

GROUPS = ("data", "model", "optimizer", "scheduler", "loss", "augment", "trainer")

# group: (packages that a `_target_` may come from, base type of the object it builds)
TARGETS: dict[str, tuple[tuple[str, ...], str]] = {
    "data": (("glimpse.data.",), "glimpse.data.module.ImageDataModule"),
    "model": (("glimpse.models.",), "torch.nn.Module"),
    "optimizer": (("torch.optim.", "glimpse.optim.muon."), "torch.optim.Optimizer"),
    "scheduler": (("glimpse.optim.schedules.",), "glimpse.optim.schedules.Schedule"),
    "loss": (("torch.nn.", "glimpse.losses."), "torch.nn.Module"),
    "augment": (("glimpse.data.augment.",), "glimpse.data.augment.base.Augmentation"),
    "callbacks": (
        ("lightning.pytorch.callbacks.", "glimpse.callbacks."),
        "lightning.pytorch.Callback",
    ),
    "metrics": (("torchmetrics.", "glimpse.metrics."), "torchmetrics.Metric"),
    "logger": (
        ("lightning.pytorch.loggers.", "glimpse.loggers."),
        "lightning.pytorch.loggers.Logger",
    ),
}

LISTS = ("callbacks", "metrics", "logger")  # groups of which several choices are taken, by name
# Keys of a group that the run reads itself and does not pass on to the target.
OURS = {"loss": ("class_weights",)}
# A ValueError or TypeError from these is a user's mistake.
LIBRARIES = ("torch.", "lightning.", "torchmetrics.")

# Keys that accept more types than that of their default, most of them from Lightning's Trainer.
OTHER_KINDS: dict[str, tuple[type, ...]] = {
    "monitor": (str,),
    "mode": (str,),
    "checkpoints.every_minutes": (int, float),
    "loss.class_weights": (str, list),
    "data.folds": (int,),
    "data.fold": (int,),
    "data.groups": (str,),
    "test": (bool, str),
    "trainer.devices": (int, str, list),
    "trainer.precision": (int, str),
    "trainer.fast_dev_run": (bool, int),
    "trainer.limit_train_batches": (int, float),
    "trainer.limit_val_batches": (int, float),
    "trainer.limit_test_batches": (int, float),
    "trainer.overfit_batches": (int, float),
    "trainer.val_check_interval": (int, float, str),
    "trainer.max_epochs": (int,),
    "trainer.min_epochs": (int,),
    "trainer.min_steps": (int,),
    "trainer.num_sanity_val_steps": (int,),
    "trainer.gradient_clip_val": (int, float),
    "trainer.check_val_every_n_epoch": (int,),
    "trainer.deterministic": (bool, str),
    "data.classes": (list,),
    "data.presize": (int,),
    "data.size": (int,),
    "data.pattern": (str,),
    "data.options": (dict,),
    "data.url": (str,),
    "data.sha256": (str,),
}

# key: (lowest, highest) allowed value
RANGES: dict[str, tuple[float, float]] = {
    "checkpoints.top_k": (1, 1000),
    "checkpoints.every_minutes": (1e-3, float("inf")),
    "loss.gamma": (0, float("inf")),
    "data.folds": (2, 1000),
    "data.fold": (0, float("inf")),
    "seed": (0, 2**32 - 1),
    "data.batch_size": (1, float("inf")),
    "data.val_fraction": (0, 0.9),
    "data.test_fraction": (0, 0.9),
    "data.presize": (1, 4096),
    "data.size": (1, 4096),
    "data.num_workers": (0, 1024),
    "data.num_classes": (2, float("inf")),
    "data.num_train": (2, float("inf")),
    "data.num_val": (1, float("inf")),
    "optimizer.lr": (0, float("inf")),
    "optimizer.matrix_lr": (0, float("inf")),
    "optimizer.num_iterations": (1, float("inf")),
    "optimizer.weight_decay": (0, float("inf")),
    "optimizer.momentum": (0, 1),
    "callbacks.ema.decay": (0, 1),
    "callbacks.pictures.every_n_epochs": (1, float("inf")),
    "lr_find.start": (1e-30, float("inf")),
    "lr_find.end": (1e-30, float("inf")),
    "lr_find.num_steps": (20, float("inf")),
    "trainer.max_epochs": (-1, float("inf")),
    "trainer.overfit_batches": (0, float("inf")),
    "trainer.accumulate_grad_batches": (1, float("inf")),
    "trainer.check_val_every_n_epoch": (1, float("inf")),
    "trainer.val_check_interval": (1e-9, float("inf")),
    "trainer.gradient_clip_val": (0, float("inf")),
    "trainer.log_every_n_steps": (0, float("inf")),
    "model.hidden": (1, float("inf")),
    "model.dropout": (0, 0.999),
    "model.patch": (1, 64),
    "model.stride": (1, 64),
    "callbacks.finetune.frozen_epochs": (0, float("inf")),
    "callbacks.finetune.backbone_factor": (1e-9, 1),
    "callbacks.finetune.depth_factor": (1e-9, 1),
    "augment.p": (0, 1),
    "augment.padding_fraction": (0, 1),
    "augment.side_fraction": (0, 1),
    "augment.brightness": (0, 1),
    "augment.contrast": (0, 1),
    "augment.saturation": (0, 1),
    "augment.hue": (0, 0.5),
    "augment.alpha": (0.01, float("inf")),
    "augment.mix_p": (0, 1),
    "augment.min_scale": (0.01, 1),
    "augment.max_rotate": (0, 180),
    "augment.max_zoom": (1, 10),
    "augment.max_warp": (0, 0.45),  # above one half, the horizon would be in the image
    "augment.p_affine": (0, 1),
    "augment.max_lighting": (0, 0.99),
    "augment.p_lighting": (0, 1),
}

CHOICES: dict[str, tuple[str | bool | None, ...]] = {
    "task": ("fit", "lr_find"),
    "tta": (None, "flip"),
    "mode": (None, "min", "max"),
    "data.sampling": ("shuffle", "balanced", "sqrt"),
    "test": (True, False, "val"),
    "data.normalize": ("none", "dataset", "imagenet"),
    "data.on_bad_file": ("error", "skip"),
    "trainer.profiler": (None, "simple", "advanced", "pytorch"),
}


# Pairs of callbacks that cannot be combined, with the reason.
APART: tuple[tuple[str, str, str], ...] = (
    ("frozen_features", "finetune", "features computed once cannot be trained"),
    ("frozen_features", "progressive_sizes", "features computed once have no size"),
    ("early_stopping", "progressive_sizes", "small images raise val/loss until the last stage"),
)

# Targets whose `monitor` must be a metric of the run.
WATCHERS = (
    "glimpse.optim.schedules.plateau",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.callbacks.ModelCheckpoint",
)

NOT_KNOWN_YET = "???"  # OmegaConf's notation for a missing value
TAKES_A_MAPPING = ("trainer.max_time.", "data.options.")  # values with keys of their own
