"""How does a model get its quality back? One training loop, its losses, weight averages and sparsity penalties."""

from prunus.recover.average import recompute_batch_norm
from prunus.recover.callbacks import PrunusCallback, PrunusLightningCallback
from prunus.recover.distil import distillation_loss, teacher_outputs
from prunus.recover.features import FeatureMatch, check_modules, match_features
from prunus.recover.gates import HardConcrete
from prunus.recover.gradual import GradualPruning
from prunus.recover.history import History
from prunus.recover.lora import adapters, check_lora
from prunus.recover.losses import Loss, TrainingStep, bound, default_loss, guarded, named_loss
from prunus.recover.precision import check_precision
from prunus.recover.sparsify import Penalty, ProximalGroup, ProximalL1, ProximalScale, sparsity_step
from prunus.recover.step import check_loss
from prunus.recover.train import train

__all__ = [
    "FeatureMatch",
    "GradualPruning",
    "HardConcrete",
    "History",
    "Loss",
    "Penalty",
    "ProximalGroup",
    "ProximalL1",
    "ProximalScale",
    "PrunusCallback",
    "PrunusLightningCallback",
    "TrainingStep",
    "adapters",
    "bound",
    "check_lora",
    "check_loss",
    "check_modules",
    "check_precision",
    "default_loss",
    "distillation_loss",
    "guarded",
    "match_features",
    "named_loss",
    "recompute_batch_norm",
    "sparsity_step",
    "teacher_outputs",
    "train",
]
