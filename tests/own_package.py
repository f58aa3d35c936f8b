"""A package of a user's own, its configuration folder and its images, for the tests of own code."""

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

FILES = {
    "ownpkg/__init__.py": "",
    "ownpkg/nets.py": """
        import warnings

        import lightning.pytorch as pl
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self, spec, *, width=4):
                super().__init__()
                self.body = nn.Sequential(
                    nn.Conv2d(spec.channels, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
                )
                self.fc = nn.Linear(width, spec.num_classes)

            def forward(self, images):
                return self.fc(self.body(images))

        class Plain(Net):
            def __init__(self, num_classes, in_channels=3):
                nn.Module.__init__(self)
                self.body = nn.Sequential(
                    nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
                )
                self.fc = nn.Linear(4, num_classes)

        class Neither(nn.Module):
            def __init__(self, width: int = 3):
                super().__init__()

        class Keyword(Net):
            def __init__(self, *, spec, width=4):
                super().__init__(spec, width=width)

        class OtherName(Plain):
            def __init__(self, n_classes):
                super().__init__(n_classes)

        class Frozen(Plain):
            def __init__(self, num_classes):
                super().__init__(num_classes)
                self.requires_grad_(False)

        class ExtraState(Plain):
            def get_extra_state(self):
                return {"epoch": 3}

            def set_extra_state(self, state):
                pass

        class Detached(Plain):
            def forward(self, images):
                return super().forward(images).detach()

        class Exits(Plain):
            def forward(self, images):
                raise SystemExit(0)

        class Cancelled(Plain):
            def forward(self, images):
                import asyncio

                raise asyncio.CancelledError

        class Softmax(Plain):
            def forward(self, images):
                return super().forward(images).softmax(1)

        class FiveClasses(Plain):
            def __init__(self, spec):
                super().__init__(5)

        class Square(Plain):
            def forward(self, images):
                return super().forward(images + images.new_zeros(1, 1, 12, 12))

        class FixedSize(nn.Module):
            def __init__(self, num_classes):
                super().__init__()
                self.fc = nn.Linear(3 * 32 * 32, num_classes)

            def forward(self, images):
                return self.fc(images.flatten(1))

        class GreyOnly(Plain):
            def __init__(self, num_classes):
                super().__init__(num_classes, 1)

        class Pair(Plain):
            def forward(self, images):
                return super().forward(images), images

        class Auxiliary(Plain):
            def forward(self, images):
                logits = super().forward(images)
                return (logits, logits) if self.training else logits

        class Anything(Plain):
            def __init__(self, **kwargs):
                super().__init__(kwargs["num_classes"])

        class Lit(pl.LightningModule):
            def __init__(self, num_classes):
                super().__init__()
                self.net = Plain(num_classes)

            def forward(self, images):
                return self.net(images)

        class Wide(nn.Module):
            def __init__(self, num_classes, in_channels):
                super().__init__()
                self.layers = nn.Sequential(
                    nn.Conv2d(in_channels, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
                )

            def forward(self, images):
                return self.layers(images)

        class Heated(Plain):
            heat = 1.0

            def forward(self, images):
                if self.training:
                    self.heat *= 1.5
                return super().forward(images) / self.heat

        class Listed(Plain):
            def __init__(self, num_classes):
                super().__init__(num_classes)
                self.layers = [nn.Linear(num_classes, num_classes)]

            def forward(self, images):
                return self.layers[0](super().forward(images))

        class Projected(Plain):
            def __init__(self, num_classes):
                super().__init__(num_classes)
                self.register_buffer("p", torch.randn(num_classes, num_classes), persistent=False)

            def forward(self, images):
                return super().forward(images) @ self.p

        class Late(Plain):
            def forward(self, images):
                logits = super().forward(images)
                if self.training and not hasattr(self, "late"):
                    self.late = nn.Linear(logits.shape[1], logits.shape[1])
                return self.late(logits) if hasattr(self, "late") else logits

        class OneMore(Plain):
            def forward(self, images):
                logits = super().forward(images)
                return nn.functional.pad(logits, (0, 1)) if self.training else logits

        class InPlace(Plain):
            def forward(self, images):
                images += 1
                return super().forward(images)

        class Random(Plain):
            def forward(self, images):
                return super().forward(images + torch.randn_like(images))

        class OutOfPlace(Plain):
            def forward(self, images):
                return super().forward(images + 1)

        class WithoutForward(nn.Module):
            def __init__(self, num_classes):
                super().__init__()
                self.fc = nn.Linear(432, num_classes)

        class NeedsLabels(Plain):
            def forward(self, images, labels):
                return super().forward(images)

        class Fourier(nn.Module):
            def __init__(self, num_classes):
                super().__init__()
                weight = torch.randn(144, num_classes, dtype=torch.cfloat)
                self.weight = nn.Parameter(weight)

            def forward(self, images):
                return self.outputs(images).abs()

            def outputs(self, images):
                return torch.fft.fft2(images.float().mean(1)).flatten(1) @ self.weight

        class ComplexOutput(Fourier):
            def forward(self, images):
                return self.outputs(images)

        class OwnStateDict(Plain):
            def state_dict(self, *args, **kwargs):
                return {"weight": self.fc.weight}

        class AlwaysDrops(Plain):
            def forward(self, images):
                return nn.functional.dropout(super().forward(images))

        class MixesImages(Plain):
            def forward(self, images):
                logits = super().forward(images)
                return logits - logits.mean(0)

        class KeepsNorm(Plain):
            def __init__(self, num_classes):
                super().__init__(num_classes)
                self.norm = nn.BatchNorm2d(3).eval()

            def forward(self, images):
                assert not self.norm.training
                return super().forward(self.norm(images))

        class Weighted(Plain):
            def __init__(self, num_classes, weights="small"):
                super().__init__(num_classes)

        def make(num_classes: int) -> nn.Module:
            return Plain(num_classes)

        def scripted(num_classes: int) -> nn.Module:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is deprecated
                return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(432, num_classes)))

        def forgets(num_classes: int) -> nn.Module:
            Plain(num_classes)

        def unknown(num_classes):
            return Plain(num_classes)
    """,
    "ownpkg/rest.py": """
        import torch
        from lightning.pytorch import Callback
        from pathlib import Path
        from glimpse.optim.schedules import Schedule
        from torch import nn
        from torchmetrics import Metric

        class Unlinked(nn.Module):
            def forward(self, logits, labels):
                mean = nn.functional.cross_entropy(logits, labels).item()
                return torch.tensor(mean, requires_grad=True)

        class OneElement(nn.Module):
            def forward(self, logits, labels):
                return nn.functional.cross_entropy(logits, labels)[None]

        class Faulty(nn.Module):
            def forward(self, logits, labels):
                return self.scaled(nn.functional.cross_entropy(logits, labels))

            def scaled(self, value):
                return value * None

        class Margin(nn.Module):
            def __init__(self, margin=1.0):
                super().__init__()
                self.margin = margin

            def forward(self, logits, labels):
                return nn.functional.multi_margin_loss(logits, labels, margin=self.margin)

        class OneArgument(nn.Module):
            def forward(self, logits):
                return logits.mean()

        def hinge(logits, labels):
            return nn.functional.multi_margin_loss(logits, labels)

        class Learns(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(2))

            def forward(self, logits, labels):
                return nn.functional.cross_entropy(logits * self.scale, labels)

        class Listed(nn.Module):
            def __init__(self, weight):
                super().__init__()
                self.weight = weight

            def forward(self, logits, labels):
                return nn.functional.cross_entropy(logits, labels, weight=self.weight)

        class Optional(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = None

            def forward(self, logits, labels):
                return nn.functional.cross_entropy(logits, labels, weight=self.weight)

        class ChangesLabels(nn.Module):
            def forward(self, logits, labels):
                labels += 1
                return logits.mean()

        class ComplexLoss(nn.Module):
            def forward(self, logits, labels):
                return nn.functional.cross_entropy(logits, labels) * 1j

        class EachImage(nn.Module):
            def forward(self, logits, labels):
                return nn.functional.cross_entropy(logits, labels, reduction="none")

        class Detached(Margin):
            def forward(self, logits, labels):
                return super().forward(logits.detach(), labels)

        class Both(Metric):
            def __init__(self):
                super().__init__()
                self.add_state("sum", torch.zeros(2), dist_reduce_fx="sum")

            def update(self, preds, target):
                self.sum += preds.sum(0)

            def compute(self):
                return self.sum

        class ChangesTarget(Metric):
            def __init__(self):
                super().__init__()
                self.add_state("sum", torch.zeros(()), dist_reduce_fx="sum")

            def update(self, preds, target):
                target += 1
                self.sum += target.sum()

            def compute(self):
                return self.sum

        class Sign(torch.optim.Optimizer):
            def __init__(self, params, lr=0.001):
                super().__init__(params, {"lr": lr})

            @torch.no_grad()
            def step(self, closure=None):
                loss = None
                if closure is not None:
                    with torch.enable_grad():
                        loss = closure()
                for group in self.param_groups:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            parameter.add_(parameter.grad.sign(), alpha=-group["lr"])
                return loss

        class Deaf(torch.optim.SGD):
            def step(self, closure=None):
                return super().step()

        class WithoutClosure(torch.optim.SGD):
            def step(self):
                super().step()

        class WithoutRate(torch.optim.Optimizer):
            def __init__(self, params):
                super().__init__(params, {})

            def step(self, closure=None):
                return closure()

        class TensorRate(torch.optim.SGD):
            def __init__(self, params, lr=0.1):
                super().__init__(params, torch.tensor(lr), foreach=False)

        class OneArgumentHook(Callback):
            def on_train_epoch_end(self, trainer):
                pass

        class OldHook(Callback):
            def on_epoch_end(self, trainer, pl_module):
                pass

            def on_improvement(self):
                pass

        class LogsOurs(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                pl_module.log("val/acc", 0.99)

        class Count(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                Path(trainer.default_root_dir, "epochs.txt").write_text(str(trainer.current_epoch + 1))

        class Logs(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                pl_module.log("weights/norm", float(trainer.current_epoch + 10))
                pl_module.log("epoch", float(trainer.current_epoch))
                if trainer.current_epoch != 1:
                    pl_module.log("rare", 1.5)

            def on_validation_epoch_end(self, trainer, pl_module):
                pl_module.log("val/mine", float(trainer.current_epoch))

        class Note(Callback):
            def __init__(self, word):
                self.word = word

            def on_fit_end(self, trainer, pl_module):
                Path(trainer.default_root_dir, "note.txt").write_text(self.word)

        class Grey(nn.Module):
            def forward(self, image):
                return image.float().mean(0, keepdim=True).expand_as(image).to(torch.uint8)

        def watches_nothing(optimizer) -> Schedule:
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return Schedule(plateau, "validation", "val/nope")

        class Shrink(torch.optim.lr_scheduler.LRScheduler):
            def __init__(self, optimizer, factor=0.5, last_epoch=-1):
                self.factor = factor
                super().__init__(optimizer, last_epoch)

            def get_lr(self):
                return [base * self.factor**self.last_epoch for base in self.base_lrs]
    """,
    "ownpkg/data.py": """
        import numpy as np
        import torch
        from glimpse.data.module import ImageDataModule
        from glimpse.data.spec import Arrays, Source

        class Halves(ImageDataModule):
            embedded = True

            def __init__(self, *, num_images, kind=None, **common):
                super().__init__(**common)
                self.kind = kind
                self.num_images = num_images

            def source_files(self):
                return []

            def read(self):
                labels = np.arange(self.num_images) % 2
                images = np.zeros((self.num_images, 8, 8, 1), np.uint8)
                images[labels == 1, :4] = 200
                if self.kind == "list":
                    return [images, labels]
                if self.kind == "channels first":
                    images = images.transpose(0, 3, 1, 2)
                elif self.kind == "floats":
                    images = images.astype(np.float32)
                elif self.kind == "flat":
                    images = images.reshape(-1, 64)
                elif self.kind == "short":
                    labels = labels[:-1]
                elif self.kind == "tensor":
                    images = torch.from_numpy(images)
                elif self.kind == "listed":
                    labels = labels.tolist()
                elif self.kind == "words":
                    labels = labels.astype("U1")
                elif self.kind == "one hot":
                    labels = np.eye(2, dtype=np.int64)[labels]
                names = (0, 1) if self.kind == "numbered" else ("dark", "light")
                return Source(names, Arrays(images, labels))

        class Alone(Halves):
            def __init__(self, *, num_images, kind=None, **common):
                pass
    """,
    "ownpkg/slip.py": "class Net(:\n",
    "ownpkg/needs.py": "import nowhere\n",
    "ownpkg/program.py": "raise SystemExit('usage: program FILE')\n",
    "src/inner/__init__.py": "",
    "ownpkg/wrong.py": """
        from pathlib import Path

        class NotANet:
            def __init__(self, *args, **kwargs):
                Path("CALLED").touch()
    """,
    "conf/model/net.yaml": "_target_: ownpkg.nets.Net\nwidth: 4\n",
    "conf/model/plain.yaml": "_target_: ownpkg.nets.Plain\n",
    "conf/model/function.yaml": "_target_: ownpkg.nets.make\n",
    "conf/model/listed.yaml": "_target_: ownpkg.nets.Listed\n",
    "conf/model/projected.yaml": "_target_: ownpkg.nets.Projected\n",
    "conf/model/late.yaml": "_target_: ownpkg.nets.Late\n",
    "conf/model/one_more.yaml": "_target_: ownpkg.nets.OneMore\n",
    "conf/model/in_place.yaml": "_target_: ownpkg.nets.InPlace\n",
    "conf/model/out_of_place.yaml": "_target_: ownpkg.nets.OutOfPlace\n",
    "conf/model/without_forward.yaml": "_target_: ownpkg.nets.WithoutForward\n",
    "conf/model/needs_labels.yaml": "_target_: ownpkg.nets.NeedsLabels\n",
    "conf/model/fourier.yaml": "_target_: ownpkg.nets.Fourier\n",
    "conf/model/complex_output.yaml": "_target_: ownpkg.nets.ComplexOutput\n",
    "conf/model/own_state_dict.yaml": "_target_: ownpkg.nets.OwnStateDict\n",
    "conf/model/always_drops.yaml": "_target_: ownpkg.nets.AlwaysDrops\n",
    "conf/model/mixes_images.yaml": "_target_: ownpkg.nets.MixesImages\n",
    "conf/model/keeps_norm.yaml": "_target_: ownpkg.nets.KeepsNorm\n",
    "conf/loss/changes_labels.yaml": "_target_: ownpkg.rest.ChangesLabels\n",
    "conf/loss/complex_loss.yaml": "_target_: ownpkg.rest.ComplexLoss\n",
    "conf/metrics/changes_target.yaml": "changes_target:\n  _target_: ownpkg.rest.ChangesTarget\n",
    "conf/optimizer/without_closure.yaml": "_target_: ownpkg.rest.WithoutClosure\nlr: 0.1\n",
    "conf/optimizer/without_rate.yaml": "_target_: ownpkg.rest.WithoutRate\n",
    "conf/optimizer/tensor_rate.yaml": "_target_: ownpkg.rest.TensorRate\nlr: 0.1\n",
    "conf/optimizer/without_momentum.yaml": "_target_: torch.optim.SGD\nlr: 0.1\n",
    "conf/callbacks/one_argument_hook.yaml": "_target_: ownpkg.rest.OneArgumentHook\n",
    "conf/callbacks/old_hook.yaml": "_target_: ownpkg.rest.OldHook\n",
    "conf/callbacks/logs_ours.yaml": "_target_: ownpkg.rest.LogsOurs\n",
    "conf/model/random.yaml": "_target_: ownpkg.nets.Random\n",
    "conf/model/weighted.yaml": "_target_: ownpkg.nets.Weighted\nweights: none\n",
    "conf/model/scripted.yaml": "_target_: ownpkg.nets.scripted\n",
    "conf/model/forgets.yaml": "_target_: ownpkg.nets.forgets\n",
    "conf/model/unknown.yaml": "_target_: ownpkg.nets.unknown\n",
    "conf/model/neither.yaml": "_target_: ownpkg.nets.Neither\n",
    "conf/model/five.yaml": "_target_: ownpkg.nets.FiveClasses\n",
    "conf/model/wrong.yaml": "_target_: ownpkg.wrong.NotANet\n",
    "conf/model/absent.yaml": "_target_: ownpkg.nets.Nett\n",
    "conf/model/elsewhere.yaml": "_target_: nopkg.nets.Net\n",
    "conf/model/square.yaml": "_target_: ownpkg.nets.Square\n",
    "conf/model/fixed_size.yaml": "_target_: ownpkg.nets.FixedSize\n",
    "conf/model/grey_only.yaml": "_target_: ownpkg.nets.GreyOnly\n",
    "conf/model/pair.yaml": "_target_: ownpkg.nets.Pair\n",
    "conf/model/auxiliary.yaml": "_target_: ownpkg.nets.Auxiliary\n",
    "conf/model/keyword.yaml": "_target_: ownpkg.nets.Keyword\nwidth: 4\n",
    "conf/model/other_name.yaml": "_target_: ownpkg.nets.OtherName\nn_classes: 2\n",
    "conf/model/frozen.yaml": "_target_: ownpkg.nets.Frozen\n",
    "conf/model/without_grad.yaml": "_target_: ownpkg.nets.Detached\n",
    "conf/model/extra_state.yaml": "_target_: ownpkg.nets.ExtraState\n",
    "conf/model/program.yaml": "_target_: ownpkg.program.Net\n",
    "conf/model/standard.yaml": "_target_: statistics.Net\n",
    "conf/model/shallow.yaml": "_target_: ownpkg.Net\n",
    "conf/model/anything.yaml": "_target_: ownpkg.nets.Anything\n",
    "conf/model/lit.yaml": "_target_: ownpkg.nets.Lit\n",
    "conf/model/my net.yaml": "_target_: ownpkg.nets.Net\nwidth: 4\n",
    "conf/model/syntax.yaml": "_target_: ownpkg.slip.Net\n",
    "conf/model/exits.yaml": "_target_: ownpkg.nets.Exits\n",
    "conf/model/cancelled.yaml": "_target_: ownpkg.nets.Cancelled\n",
    "conf/model/wide.yaml": "_target_: ownpkg.nets.Wide\n",
    "conf/model/heated.yaml": "_target_: ownpkg.nets.Heated\n",
    "conf/model/softmax.yaml": "_target_: ownpkg.nets.Softmax\n",
    "conf/model/deeper.yaml": "_target_: ownpkg.nets.Net\ndepth: 3\n",
    "conf/model/needs.yaml": "_target_: ownpkg.needs.Net\n",
    "conf/loss/log_probabilities.yaml": "_target_: torch.nn.NLLLoss\n",
    "conf/logger/wrong.yaml": ("_target_: lightning.pytorch.loggers.CSVLogger\nflush_every: 3\n"),
    "conf/loss/unlinked.yaml": "_target_: ownpkg.rest.Unlinked\n",
    "conf/loss/one_element.yaml": "_target_: ownpkg.rest.OneElement\n",
    "conf/loss/faulty.yaml": "_target_: ownpkg.rest.Faulty\n",
    "conf/loss/one_argument.yaml": "_target_: ownpkg.rest.OneArgument\n",
    "conf/loss/function.yaml": "_target_: ownpkg.rest.hinge\n",
    "conf/data/lightning.yaml": (
        "defaults: [_common]\n_target_: lightning.pytorch.LightningDataModule\n"
    ),
    "conf/model/package.yaml": "_target_: ownpgk.nets.Net\n",
    "conf/model/module.yaml": "_target_: ownpkg.net.Net\n",
    "conf/model/inner.yaml": "_target_: inner.Net\n",
    "conf/model/nameless.yaml": "_target: ownpkg.nets.Net\n",
    "conf/model/empty.yaml": "",
    "conf/model/yaml.yaml": "_target_: ownpkg.nets.Net\n  width: 3\n",
    "conf/loss/learns.yaml": "_target_: ownpkg.rest.Learns\n",
    "conf/loss/listed.yaml": "_target_: ownpkg.rest.Listed\nweight: [1, 2]\n",
    "conf/loss/sum.yaml": "_target_: torch.nn.CrossEntropyLoss\nreduction: sum\n",
    "conf/loss/detached.yaml": "_target_: ownpkg.rest.Detached\n",
    "conf/metrics/both.yaml": "both:\n  _target_: ownpkg.rest.Both\n",
    "conf/experiment/lost.yaml": "trainer:\n  max_epochs: 2\n",
    "conf/data/halves.yaml": (
        "defaults: [_common]\n_target_: ownpkg.data.Halves\nnum_images: 60\nkind: null\nval_fraction: 0.2\n"
    ),
    "conf/data/alone.yaml": (
        "defaults: [_common]\n_target_: ownpkg.data.Alone\nnum_images: 60\nkind: null\nval_fraction: 0.2\n"
    ),
    "conf/data/bare.yaml": "_target_: ownpkg.data.Halves\nnum_images: 60\n",
    "conf/data/photos.yaml": (
        "defaults: [image_folder]\nroot: photos\npresize: 12\nbatch_size: 8\nnum_workers: 1\n"
    ),
    "conf/loss/optional.yaml": "_target_: ownpkg.rest.Optional\n",
    "conf/loss/margin.yaml": "_target_: ownpkg.rest.Margin\nmargin: 1.0\n",
    "conf/loss/each.yaml": "_target_: ownpkg.rest.EachImage\n",
    "conf/loss/weighted.yaml": "_target_: torch.nn.CrossEntropyLoss\nweight: [1, 3]\n",
    "conf/optimizer/bare.yaml": "_target_: torch.optim.RMSprop\n",
    "conf/optimizer/lbfgs.yaml": "_target_: torch.optim.LBFGS\nlr: 0.1\n",
    "conf/optimizer/deaf.yaml": "_target_: ownpkg.rest.Deaf\nlr: 0.01\n",
    "conf/optimizer/sign.yaml": "_target_: ownpkg.rest.Sign\nlr: 0.01\n",
    "conf/optimizer/rmsprop.yaml": "_target_: torch.optim.RMSprop\nlr: 0.001\n",
    "conf/scheduler/shrink.yaml": "_target_: ownpkg.rest.Shrink\nfactor: 0.5\n",
    "conf/scheduler/annealing.yaml": (
        "_target_: torch.optim.lr_scheduler.CosineAnnealingLR\nT_max: null\neta_min: 0.0\n"
    ),
    "conf/scheduler/lost.yaml": "_target_: ownpkg.rest.watches_nothing\n",
    "conf/scheduler/by_step.yaml": (
        "_target_: torch.optim.lr_scheduler.ReduceLROnPlateau\ninterval: step\n"
    ),
    "conf/callbacks/finder.yaml": "_target_: lightning.pytorch.callbacks.BatchSizeFinder\n",
    "conf/callbacks/swa.yaml": (
        "_target_: lightning.pytorch.callbacks.StochasticWeightAveraging\nswa_lrs: 0.01\n"
    ),
    "conf/callbacks/rate.yaml": "_target_: lightning.pytorch.callbacks.LearningRateMonitor\n",
    "conf/callbacks/count.yaml": "_target_: ownpkg.rest.Count\n",
    "conf/callbacks/logs.yaml": "_target_: ownpkg.rest.Logs\n",
    "conf/callbacks/note.yaml": "_target_: ownpkg.rest.Note\nword: hello\n",
    "conf/callbacks/topk.yaml": """
        topk:
          _target_: lightning.pytorch.callbacks.ModelCheckpoint
          monitor: val/loss
          save_top_k: 2
          save_last: null
          filename: 'epoch{epoch}'
          auto_insert_metric_name: false
    """,
    "conf/augment/jitter.yaml": "_target_: torchvision.transforms.v2.ColorJitter\nbrightness: 0.3\n",
    "conf/augment/grey.yaml": "_target_: ownpkg.rest.Grey\n",
    "conf/experiment/mine.yaml": """
        # @package _global_
        defaults:
          - override /data: halves
          - override /model: net
          - override /optimizer: rmsprop
          - override /callbacks: [count]
        trainer:
          max_epochs: 2
    """,
}


def write_package(folder: Path) -> Path:
    """Write the package, conf/ and twelve photographs of each of two classes; returns the folder."""
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))
    random = np.random.default_rng(0)
    for kind, name in enumerate(("lying", "standing")):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(12):
            stripes = np.zeros((12, 12, 3), np.uint8)
            stripes[::2] = 200
            pixels = (stripes.swapaxes(0, 1) if kind else stripes) + random.integers(
                0, 50, (12, 12, 1)
            )
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / "photos" / name / f"{number}.png")
    return folder
