"""A comparison says what isn't equal in it: more training, and weights that may know the test set."""

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.events import silent
from prunus.core.recipes.recipe import Data
from prunus.data import prepare_arrays
from prunus.report.format import budget, finding, headline
from prunus.report.page.html import render_html
from report_samples import sample

DRAW = torch.Generator().manual_seed(0)
INPUTS = torch.randn(240, 6, generator=DRAW)
LABELS = (INPUTS[:, 0] + 0.5 * torch.randn(240, generator=DRAW) > 0).long()
QUICK = {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "runtime": "torch"}}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def ran(data=(INPUTS, LABELS), control="none", **options):
    return ModelOptimizer(
        network(),
        data,
        strategy={"criterion": "magnitude_l2", "keep_fraction": 0.5},
        train={"epochs": 2, "learning_rate": 0.02},
        recovery={"epochs": 3, "learning_rate": 0.02},
        evaluation=QUICK | {"control": control},
        seeds=[0],
        listener=silent,
        **options,
    ).run()


def better(record, **changes):
    first, *rest = record.comparison
    return record.model_copy(update={"comparison": [first.model_copy(update={"verdict": "better"}), *rest], **changes})


def test_better_after_more_training_says_so():
    record = ran()
    assert record.epochs == {"dense": 2, "pruned": 5}
    said = better(record)
    assert "after 3 epochs of training more than the dense model had" in headline(said)
    assert finding(said).endswith("after more training")
    assert budget(better(record, epochs={"dense": 5, "pruned": 5})) == ""
    worse = record.comparison[0].model_copy(update={"verdict": "worse"})
    assert budget(record.model_copy(update={"comparison": [worse]})) == "", "more training explains no loss"
    assert budget(better(sample())) == "", "a record that doesn't know says nothing"


def test_a_control_is_the_dense_model_after_as_many_epochs_more():
    plain, equal = ran(), ran(control="same_budget")
    assert equal.epochs == {"dense": 5, "pruned": 5}
    assert len(equal.curves["control"].loss) == 3
    assert plain.values("pruned", "test", "accuracy") == equal.values("pruned", "test", "accuracy")
    before, after = (record.curves[name].loss[-1] for record, name in ((plain, "train"), (equal, "control")))
    assert before is not None
    assert after is not None
    assert after < before, "it was trained on, from where it stood"
    assert plain.values("dense", "train", "accuracy") != equal.values("dense", "train", "accuracy")


def test_weights_from_elsewhere_may_know_the_test_examples():
    trained = ModelOptimizer(network(), (INPUTS, LABELS), train={"epochs": 5}, listener=silent).fit()
    own = prepare_arrays(INPUTS, LABELS, Data(source="arrays", standardize=False))
    known, unknown, fresh = ran(own, trained=True), ran(trained=True), ran()
    assert [record.data.test_seen for record in (known, unknown, fresh)] == ["no", "unknown", "no"]
    assert any("may have been trained on test examples" in note for note in unknown.notes)
    assert not any("trained on test examples" in note for note in (*known.notes, *fresh.notes))
    assert "no decision of this run saw (the given weights may have)" in render_html(unknown)
    assert "the given weights may have" not in render_html(known)
    assert trained.model_ is not None


@pytest.mark.parametrize("control", ["equal", True])
def test_an_unknown_control_is_refused(control):
    with pytest.raises(ValueError, match="control"):
        ran(control=control)
