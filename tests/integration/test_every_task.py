"""Every registered task goes through a whole run: evidence, cut, adjustment, recovery, comparison, contract, plan, bundle, file."""

import json

import pytest
import torch

import prunus
from prunus.core.calls import answers, call, select_rows
from prunus.evaluate.timing.onnx_session import OnnxModel
from prunus.ship import export_file
from prunus.tasks import tasks
from task_jobs import JOBS
from tests_support import onnxruntime_installed


def quiet(event):
    pass


def test_every_registered_task_has_a_model_here():
    assert set(JOBS) - {"own"} == set(tasks)


def inputs_of(job):
    if isinstance(job.data, torch.utils.data.DataLoader):
        return next(iter(job.data))[0][:3]
    return select_rows(job.data[0] if isinstance(job.data, tuple) else job.data, torch.arange(3))


@pytest.mark.parametrize("name", sorted(JOBS))
def test_a_task_goes_through_a_whole_run(name, tmp_path):
    job = JOBS[name]
    torch.manual_seed(0)
    optimizer = prunus.ModelOptimizer(
        job.model(),
        job.data,
        task=job.task,
        strategy={"criterion": "taylor", "keep_fraction": 0.75},
        metrics=[job.metric],
        train={"epochs": 2},
        recovery={"epochs": 1, "adjust": ["least_squares"]},
        evaluation={"bootstrap": 100},
        seeds=[0],
        listener=quiet,
        **job.options,
    )
    record = optimizer.run()
    (row,) = [one for one in record.comparison if one.metric == job.metric]
    assert row.difference.low <= row.difference.value <= row.difference.high
    assert json.loads(json.dumps(optimizer.evaluate()["test"].to_dict()))["metrics"]
    kept = optimizer.plan_.steps[0]
    assert kept.n_kept < kept.n_units

    inputs = inputs_of(job)
    json.dumps(optimizer.predict(inputs))
    model = optimizer.model_.eval()
    with torch.no_grad():
        expected = answers(call(model, inputs))
    optimizer.save(tmp_path / "bundle")
    bundle = prunus.load_bundle(tmp_path / "bundle")
    for one, other in zip(bundle.outputs(inputs), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    if onnxruntime_installed():
        made = export_file(bundle, "onnx", tmp_path / "model.onnx")
        assert made.difference < 1e-3
        file = OnnxModel((tmp_path / "model.onnx").read_bytes())
        for one, other in zip(file.outputs(inputs), answers(optimizer.predict_outputs(inputs)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(JOBS))
def test_a_contract_on_a_task_is_kept_or_nothing_is_cut(name):
    job = JOBS[name]
    torch.manual_seed(0)
    model = job.model().eval()
    asked = {"metric": job.metric, "max_drop": 0.5, "confidence": 0.8}
    options = {"task": job.task, "loss": job.options.get("loss")}
    result = prunus.prune(
        model,
        inputs_of(job),
        data=job.data,
        keep_fraction=0.75,
        contract=asked,
        n_calibration=64,
        listener=quiet,
        **options,
    )
    assert result.test.metric == job.metric
    assert (result.after.macs < result.before.macs) == result.test.kept
