"""How does a model get its quality back? One training loop, its losses, weight averages and sparsity penalties."""

from prunus.recover.adjust import Adjustment, adjust
from prunus.recover.average import recompute_batch_norm
from prunus.recover.distil import distillation_loss, teacher_outputs
from prunus.recover.history import History
from prunus.recover.in_order import compensate, layers_in_order, moments_in_order
from prunus.recover.layer_inputs import (
    Moments,
    from_matrices,
    input_rows,
    is_matrix_layer,
    matrices,
    observed,
    set_matrices,
)
from prunus.recover.losses import Loss, default_loss
from prunus.recover.refit import least_squares, least_squares_inputs, obs_update, reconstruct
from prunus.recover.sparsegpt import inverse_factor, sparsegpt_prune
from prunus.recover.sparsify import Penalty, ProximalGroup, ProximalL1, ProximalScale, sparsity_step
from prunus.recover.support import check_amount, check_pattern, keep_top
from prunus.recover.train import train

__all__ = [
    "Adjustment",
    "History",
    "Loss",
    "Moments",
    "Penalty",
    "ProximalGroup",
    "ProximalL1",
    "ProximalScale",
    "adjust",
    "check_amount",
    "check_pattern",
    "compensate",
    "default_loss",
    "distillation_loss",
    "from_matrices",
    "input_rows",
    "inverse_factor",
    "is_matrix_layer",
    "keep_top",
    "layers_in_order",
    "least_squares",
    "least_squares_inputs",
    "matrices",
    "moments_in_order",
    "obs_update",
    "observed",
    "recompute_batch_norm",
    "reconstruct",
    "set_matrices",
    "sparsegpt_prune",
    "sparsity_step",
    "teacher_outputs",
    "train",
]
