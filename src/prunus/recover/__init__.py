"""How does a model get its quality back? One training loop, its losses, weight averages and sparsity penalties."""

from prunus.recover.average import recompute_batch_norm
from prunus.recover.distil import distillation_loss, teacher_outputs
from prunus.recover.gates import HardConcrete
from prunus.recover.history import History
from prunus.recover.losses import Loss, default_loss
from prunus.recover.sparsify import Penalty, ProximalGroup, ProximalL1, ProximalScale, sparsity_step
from prunus.recover.train import train

__all__ = [
    "HardConcrete",
    "History",
    "Loss",
    "Penalty",
    "ProximalGroup",
    "ProximalL1",
    "ProximalScale",
    "default_loss",
    "distillation_loss",
    "recompute_batch_norm",
    "sparsity_step",
    "teacher_outputs",
    "train",
]
