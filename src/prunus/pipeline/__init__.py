"""The main job as a readable list of stages, and what is done with its results."""

from prunus.pipeline.auto import Pruned, prune
from prunus.pipeline.bundle_commands import evaluate_bundle, export_bundle, predict_file, write_report
from prunus.pipeline.carried import needs_permission, recipe_of_plan
from prunus.pipeline.clean_examples import Cleaned, clean_examples
from prunus.pipeline.commands.select_examples import Selected, select_examples
from prunus.pipeline.commands.signed_bundles import sign_path, verify_path
from prunus.pipeline.flow.main_job import apply_plan, finish, make_plan, run
from prunus.pipeline.flow.open_job import follow
from prunus.pipeline.flow.plan_of_run import plan_of
from prunus.pipeline.flow.seed_run import prune_seed, run_job, run_seed
from prunus.pipeline.jobs.job import Candidate, Job, SeedResult
from prunus.pipeline.jobs.shared_trainings import led
from prunus.pipeline.jobs.workspace import LOAD_DATA, Workspace
from prunus.pipeline.measure import quality_of
from prunus.pipeline.safety import Asked, evaluate_safety
from prunus.pipeline.score_examples import Scored, score_examples, score_recordings
from prunus.pipeline.variance import Variance, reduce_variance

__all__ = [
    "LOAD_DATA",
    "Asked",
    "Candidate",
    "Cleaned",
    "Job",
    "Pruned",
    "Scored",
    "SeedResult",
    "Selected",
    "Variance",
    "Workspace",
    "apply_plan",
    "clean_examples",
    "evaluate_bundle",
    "evaluate_safety",
    "export_bundle",
    "finish",
    "follow",
    "led",
    "make_plan",
    "needs_permission",
    "plan_of",
    "predict_file",
    "prune",
    "prune_seed",
    "quality_of",
    "recipe_of_plan",
    "reduce_variance",
    "run",
    "run_job",
    "run_seed",
    "score_examples",
    "score_recordings",
    "select_examples",
    "sign_path",
    "verify_path",
    "write_report",
]
