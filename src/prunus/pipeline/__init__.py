"""The main job as a readable list of stages, and what is done with its results."""

from prunus.pipeline.flow import apply_plan, make_plan, run, run_job, run_seed
from prunus.pipeline.job import Candidate, Job, SeedResult
from prunus.pipeline.use import evaluate_bundle, predict_file, write_report
from prunus.pipeline.workspace import Workspace

__all__ = [
    "Candidate",
    "Job",
    "SeedResult",
    "Workspace",
    "apply_plan",
    "evaluate_bundle",
    "make_plan",
    "predict_file",
    "run",
    "run_job",
    "run_seed",
    "write_report",
]
