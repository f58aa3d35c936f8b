"""The rules for configuration values beyond the YAML files: packages, types, ranges and choices."""

from math import inf

from glimpse.monitor import VIEWS

# Groups whose one chosen file needs a `_target_`.
BUILT_FROM_ONE = ("data", "model", "optimizer", "scheduler", "loss")
REPORTED = (*BUILT_FROM_ONE, "augment")  # groups whose choices records and reports name
GROUPS = (*REPORTED, "trainer")  # groups that take one choice; augment also takes several

# group: base types of the objects that a `_target_` builds; messages name the first one
TARGETS: dict[str, tuple[str, ...]] = {
    "data": ("glimpse.data.module.ImageDataModule",),
    "model": ("torch.nn.Module",),
    "optimizer": ("torch.optim.Optimizer",),
    "scheduler": ("torch.optim.lr_scheduler.LRScheduler", "glimpse.optim.schedules.Schedule"),
    "loss": ("torch.nn.Module",),
    "augment": ("torch.nn.Module", "glimpse.data.augment.base.Augmentation"),
    "callbacks": ("lightning.pytorch.Callback",),
    "metrics": ("torchmetrics.Metric",),
    "logger": ("lightning.pytorch.loggers.Logger",),
}

LISTS = ("callbacks", "metrics", "logger")  # groups that accept several choices, by name
LISTED = ("augment", *LISTS)  # groups that may be typed as a list
# Keys of a group that the run reads itself: those that no target receives, and those that only our
# own classes receive.
NOT_PASSED_ON = {"loss": ("class_weights",)}
ONLY_FOR_OURS = {"model": ("weights",)}
# A ValueError or TypeError from these is a user's mistake, and a stranger's record may name them.
LIBRARIES = ("torch", "torchvision", "torchmetrics", "lightning", "timm")
# The datasets of a user's own images.
IMAGE_FOLDER = "glimpse.data.sets.image_folder.ImageFolder"
CSV_TABLE = "glimpse.data.sets.csv_table.CsvTable"

# Values that are paths, which are taken literally.
PATHS = (
    "data_dir", "output_dir", "resume", "data.root", "data.train", "data.val", "data.test",
    "data.folder", "model.weights",
)  # fmt: skip
# Text of other kinds, which is quoted only if Hydra cannot read it.
TEXTS = (
    *PATHS,
    "name",
    "data.name",
    "data.path",
    "data.split",
    "data.suffix",
    "data.pattern",
    "data.url",
)

# Keys that accept more types than their default has, most of them from Lightning's Trainer.
OTHER_KINDS: dict[str, tuple[type, ...]] = {
    "monitor": (str,),
    "mode": (str,),
    "checkpoints.every_minutes": (int, float),
    "loss.class_weights": (str, list),
    "data.folds": (int,),
    "data.fold": (int,),
    "data.groups": (int, str),
    "test": (bool, str),
    "compile": (bool, str),
    "trainer.devices": (int, str, list),
    "trainer.num_nodes": (int, str),
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
    "trainer.benchmark": (bool,),
    "trainer.max_time": (str, dict),
    "data.classes": (list,),
    "data.global_batch_size": (int,),
    "data.presize": (int, list),
    "data.size": (int, list),
    "data.pattern": (str,),
    "data.path": (str, int),
    "data.label": (str, int, list),
    "data.split": (str, int),
    "data.folder": (str,),
    "data.suffix": (str,),
    "data.options": (dict,),
    "data.url": (str,),
    "data.sha256": (str,),
}

# What to type for keys whose default, null, is no example.
EXAMPLES = {"trainer.max_time": "00:01:30:00 for an hour and a half"}

# key: (lowest, highest) allowed value
RANGES: dict[str, tuple[float, float]] = {
    "checkpoints.top_k": (1, 1000),
    "checkpoints.every_minutes": (1e-3, inf),
    "max_nonfinite_steps": (1, inf),
    "loss.gamma": (0, inf),
    "loss.label_smoothing": (0, 0.999),  # 1 would make all classes equally right
    "data.folds": (2, 1000),
    "data.fold": (0, inf),
    "seed": (0, 2**32 - 1),
    "data.split_seed": (0, 2**32 - 1),
    "data.batch_size": (1, inf),
    "data.global_batch_size": (1, inf),
    "trainer.num_nodes": (1, inf),
    "data.val_fraction": (0, 0.9),
    "data.test_fraction": (0, 0.9),
    "data.presize": (1, 4096),
    "data.size": (1, 4096),
    "data.num_workers": (0, 1024),
    "data.shape": (1, inf),
    "data.num_classes": (2, inf),
    "data.num_train": (2, inf),
    "data.num_val": (1, inf),
    "optimizer.lr": (0, inf),
    "optimizer.matrix_lr": (0, inf),
    "optimizer.num_iterations": (1, inf),
    "optimizer.weight_decay": (0, inf),
    "optimizer.momentum": (0, 1),
    "optimizer.betas": (0, 0.999999),
    "optimizer.eps": (0, inf),
    "scheduler.start_factor": (0, inf),
    "scheduler.final_factor": (0, inf),
    "scheduler.factor": (0, 0.999999),  # with 1, the learning rate would not fall
    "scheduler.warmup_fraction": (0, 0.999999),
    "scheduler.every": (1, inf),
    "scheduler.patience": (0, inf),
    "callbacks.early_stopping.patience": (0, inf),
    "callbacks.early_stopping.min_delta": (0, inf),
    "callbacks.progressive_sizes.fractions": (1e-9, 1),
    "callbacks.progressive_sizes.until": (0, 1),
    "callbacks.ema.decay": (0, 1),
    "callbacks.pictures.every_n_epochs": (1, inf),
    "lr_find.start": (1e-30, inf),
    "lr_find.end": (1e-30, inf),
    "lr_find.num_steps": (20, inf),
    "trainer.max_epochs": (-1, inf),
    "trainer.min_epochs": (0, inf),
    "trainer.max_steps": (-1, inf),
    "trainer.min_steps": (0, inf),
    "trainer.fast_dev_run": (0, inf),
    "trainer.limit_train_batches": (0, inf),
    "trainer.limit_val_batches": (0, inf),
    "trainer.limit_test_batches": (0, inf),
    "trainer.num_sanity_val_steps": (-1, inf),
    "trainer.reload_dataloaders_every_n_epochs": (0, inf),
    "trainer.overfit_batches": (0, inf),
    "trainer.accumulate_grad_batches": (1, inf),
    "trainer.check_val_every_n_epoch": (1, inf),
    "trainer.val_check_interval": (1e-9, inf),
    "trainer.gradient_clip_val": (0, inf),
    "trainer.log_every_n_steps": (0, inf),
    "model.hidden": (1, inf),
    "model.widths": (1, inf),
    "model.depth": (1, inf),
    "model.depths": (0, inf),
    "model.eps": (0, inf),
    "model.dropout": (0, 0.999),
    "model.patch": (1, 64),
    "model.stride": (1, 64),
    "callbacks.finetune.frozen_epochs": (0, inf),
    "callbacks.finetune.backbone_factor": (1e-9, 1),
    "callbacks.finetune.depth_factor": (1e-9, 1),
    "callbacks.hard_examples.fraction": (0.01, 1),
    "metrics.calibration.num_bins": (1, inf),
    "logger.csv.flush_logs_every_n_steps": (1, inf),
    "augment.p": (0, 1),
    "augment.padding_fraction": (0, 1),
    "augment.side_fraction": (0, 1),
    "augment.brightness": (0, 1),
    "augment.contrast": (0, 1),
    "augment.saturation": (0, 1),
    "augment.hue": (0, 0.5),
    "augment.alpha": (0.01, inf),
    "augment.mix_p": (0, 1),
    "augment.min_scale": (0.01, 1),
    "augment.max_rotate": (0, 180),
    "augment.max_zoom": (1, 10),
    "augment.max_warp": (0, 0.45),  # above one half, the horizon would be in the image
    "augment.p_affine": (0, 1),
    "augment.max_lighting": (0, 0.99),
    "augment.p_lighting": (0, 1),
}

# A whole number counts batches; a number with a fraction is a share of them.
SHARES = (
    "trainer.limit_train_batches",
    "trainer.limit_val_batches",
    "trainer.limit_test_batches",
    "trainer.overfit_batches",
    "trainer.val_check_interval",
)

# Limits that may be infinite, which means no limit.
UNBOUNDED = ("trainer.gradient_clip_val", "checkpoints.every_minutes")

PRECISIONS = (
    "auto", "bf16-mixed", "16-mixed", "32-true", "64-true", "bf16-true", "16-true", "bf16", "16",
    "32", "64", 16, 32, 64, "transformer-engine", "transformer-engine-float16",
)  # fmt: skip
CHOICES: dict[str, tuple[str | int | None, ...]] = {
    "task": ("fit", "lr_find"),
    "tta": (None, *VIEWS),
    "mode": (None, "min", "max"),
    "on_nonfinite": ("stop", "skip"),
    "data.sampling": ("shuffle", "balanced", "sqrt"),
    "test": (True, False, "val"),
    "compile": (True, False, "default", "reduce-overhead", "max-autotune"),
    "data.normalize": ("none", "dataset", "imagenet"),
    "data.fit": ("crop", "pad", "squash"),
    "data.on_bad_file": ("error", "skip"),
    "scheduler.anneal_strategy": ("cos", "linear"),
    # Others either start processes that leave no run folder, or shard weights, which is not tested.
    "trainer.strategy": (
        "auto",
        "ddp",
        "ddp_find_unused_parameters_true",
        "ddp_find_unused_parameters_false",
    ),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.deterministic": (None, True, False, "warn"),
    "trainer.precision": PRECISIONS,
    "trainer.gradient_clip_algorithm": (None, "norm", "value"),
    "trainer.profiler": (None, "simple", "advanced", "pytorch"),
}

# Pairs of callbacks that cannot be combined, with the reason.
APART: tuple[tuple[str, str, str], ...] = (
    ("frozen_features", "finetune", "features computed once cannot be trained"),
    ("frozen_features", "progressive_sizes", "features computed once have no size"),
    ("frozen_features", "hard_examples", "features computed once are no images to choose from"),
    ("early_stopping", "progressive_sizes", "small images raise val/loss until the last stage"),
)

PAIRS = ("optimizer.betas",)  # two numbers
SIZES = ("data.presize", "data.size")  # a side in pixels, or [height,width]
# Targets whose `monitor` must be a metric of the run.
WATCHERS = (
    "glimpse.optim.schedules.plateau",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.callbacks.ModelCheckpoint",
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
)

NOT_KNOWN_YET = "???"  # OmegaConf's notation for a missing value
TAKES_A_MAPPING = ("trainer.max_time.", "data.options.")  # values that are mappings with any keys
