"""How does a model get its quality back? One training loop, its losses, weight averages and sparsity penalties."""

from prunus.recover.distil import distillation_loss, teacher_outputs
from prunus.recover.feature_distillation import FeatureMatch, check_modules, match_features
from prunus.recover.lora import adapters, check_lora
from prunus.recover.refit.adjust import Adjusted, Adjustment, Check, adjust
from prunus.recover.refit.held_out import FEWEST, Answers, Measure, distance, natural_measure, split_off
from prunus.recover.refit.layer_inputs import (
    Moments,
    Squares,
    Stacked,
    from_matrices,
    input_rows,
    is_matrix_layer,
    matrices,
    observed,
    set_matrices,
)
from prunus.recover.refit.least_squares import least_squares, least_squares_inputs, obs_update, reconstruct
from prunus.recover.refit.mask_patterns import check_amount, check_pattern, keep_top
from prunus.recover.refit.sequential import compensate, layers_in_order, moments_in_order
from prunus.recover.refit.sparsegpt import inverse_factor, sparsegpt_prune
from prunus.recover.sparsity.callbacks import PrunusCallback, PrunusLightningCallback
from prunus.recover.sparsity.gates import HardConcrete
from prunus.recover.sparsity.gradual import GradualPruning
from prunus.recover.sparsity.penalty import Penalty
from prunus.recover.sparsity.sparsify import ProximalGroup, ProximalL1, ProximalScale, sparsity_step
from prunus.recover.training.average import recompute_batch_norm
from prunus.recover.training.follow import follow_trainings
from prunus.recover.training.history import History
from prunus.recover.training.losses import (
    Loss,
    TrainingStep,
    bound,
    default_loss,
    given_loss,
    guarded,
    named_loss,
    unlearnt,
)
from prunus.recover.training.mixed_precision import check_precision
from prunus.recover.training.ranks.meeting import Meeting, current, leading, open_meeting
from prunus.recover.training.step import check_loss
from prunus.recover.training.train import train
from prunus.recover.training.training_batches import n_training_batches

__all__ = [
    "FEWEST",
    "Adjusted",
    "Adjustment",
    "Answers",
    "Check",
    "FeatureMatch",
    "GradualPruning",
    "HardConcrete",
    "History",
    "Loss",
    "Measure",
    "Meeting",
    "Moments",
    "Penalty",
    "ProximalGroup",
    "ProximalL1",
    "ProximalScale",
    "PrunusCallback",
    "PrunusLightningCallback",
    "Squares",
    "Stacked",
    "TrainingStep",
    "adapters",
    "adjust",
    "bound",
    "check_amount",
    "check_lora",
    "check_loss",
    "check_modules",
    "check_pattern",
    "check_precision",
    "compensate",
    "current",
    "default_loss",
    "distance",
    "distillation_loss",
    "follow_trainings",
    "from_matrices",
    "given_loss",
    "guarded",
    "input_rows",
    "inverse_factor",
    "is_matrix_layer",
    "keep_top",
    "layers_in_order",
    "leading",
    "least_squares",
    "least_squares_inputs",
    "match_features",
    "matrices",
    "moments_in_order",
    "n_training_batches",
    "named_loss",
    "natural_measure",
    "obs_update",
    "observed",
    "open_meeting",
    "recompute_batch_norm",
    "reconstruct",
    "set_matrices",
    "sparsegpt_prune",
    "sparsity_step",
    "split_off",
    "teacher_outputs",
    "train",
    "unlearnt",
]
