"""Train a GPT or a VQGAN; Trainer and Task for further models.

finetune, TrainConfig               train a GPT on a lattice table, write a model folder
train_vqgan, VQGANTrainConfig       train a VQGAN on images, write its folder
dry_run_finetune, dry_run_vqgan     report memory and time of a training
Trainer, TrainerConfig              the loop of every training
Task, Phase                         what the Trainer trains
ProcessGroup                        the processes that train one model
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from artist.training.config import TrainConfig, VQGANTrainConfig
    from artist.training.dry_run import DryRunReport, dry_run_finetune, dry_run_vqgan
    from artist.training.gpt_training import FinetuneReport, finetune
    from artist.training.process_group import ProcessGroup
    from artist.training.task import Phase, Task
    from artist.training.trainer import Trainer, TrainerConfig
    from artist.training.vqgan_training import VQGANReport, train_vqgan

__all__ = [
    "DryRunReport",
    "FinetuneReport",
    "Phase",
    "ProcessGroup",
    "Task",
    "TrainConfig",
    "Trainer",
    "TrainerConfig",
    "VQGANReport",
    "VQGANTrainConfig",
    "dry_run_finetune",
    "dry_run_vqgan",
    "finetune",
    "train_vqgan",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "DryRunReport": "artist.training.dry_run",
        "FinetuneReport": "artist.training.gpt_training",
        "Phase": "artist.training.task",
        "ProcessGroup": "artist.training.process_group",
        "Task": "artist.training.task",
        "TrainConfig": "artist.training.config",
        "Trainer": "artist.training.trainer",
        "TrainerConfig": "artist.training.trainer",
        "VQGANReport": "artist.training.vqgan_training",
        "VQGANTrainConfig": "artist.training.config",
        "dry_run_finetune": "artist.training.dry_run",
        "dry_run_vqgan": "artist.training.dry_run",
        "finetune": "artist.training.gpt_training",
        "train_vqgan": "artist.training.vqgan_training",
    },
)
