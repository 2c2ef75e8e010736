"""What is recorded about examples is the papers' formulas, in any order of batches."""

import itertools

import numpy as np
import pytest
import torch

from prunus.core.errors import RecipeError, RunError, ShapeError, UnknownNameError
from prunus.score import ExampleRecorder, criteria, example_criteria, example_strata, recorded_names
from prunus.score.catalogue import criteria_table
from prunus.select import select
from prunus.tasks import Classification, MultiLabel, Regression, Segmentation

N, CLASSES, EPOCHS = 9, 4, 3
CLASSIFY = Classification(tuple("abcd"))


@pytest.fixture
def logits():
    return torch.randn(EPOCHS, N, CLASSES, generator=torch.Generator().manual_seed(0)) * 3


TARGETS = torch.arange(N) % CLASSES


def watch(recorder, logits, targets, batch_of, *, batch_size=4, first_epoch=0):
    for epoch, outputs in enumerate(logits):
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(epoch))
        for index in order.split(batch_size):
            recorder(epoch + first_epoch, batch_of(index, torch.zeros(len(index), 1), targets[index]), outputs[index])
    return recorder.tensors()


def softmax(row):
    e = np.exp(row - row.max())
    return e / e.sum()


@pytest.mark.parametrize("early", [None, 1, 2])
def test_el2n_aum_and_probabilities_are_the_formulas_averaged_over_epochs(logits, batch_of, early):
    found = watch(ExampleRecorder(N, CLASSIFY, el2n_epochs=early), logits, TARGETS, batch_of, first_epoch=5)
    values = logits.double().numpy()
    for i, y in enumerate(TARGETS.tolist()):
        p = [softmax(values[e, i]) for e in range(EPOCHS)]
        el2n = [np.linalg.norm(q - np.eye(CLASSES)[y]) for q in p]
        aum = [values[e, i, y] - max(v for k, v in enumerate(values[e, i]) if k != y) for e in range(EPOCHS)]
        assert found["el2n"][i] == pytest.approx(np.mean(el2n[:early]), rel=1e-5)
        assert found["aum"][i] == pytest.approx(np.mean(aum), rel=1e-5)
        assert found["confidence"][i] == pytest.approx(np.mean([q[y] for q in p]), rel=1e-5)
        assert found["confidence_deviation"][i] == pytest.approx(np.std([q[y] for q in p]), rel=1e-4, abs=1e-6)
        assert found["loss"][i] == pytest.approx(np.mean([-np.log(q[y]) for q in p]), rel=1e-5)
        assert found["loss_deviation"][i] == pytest.approx(np.std([-np.log(q[y]) for q in p]), rel=1e-4, abs=1e-6)
        assert found["entropy"][i] == pytest.approx(np.mean([-(q * np.log(q)).sum() for q in p]), rel=1e-5)
        assert found["gap"][i] == pytest.approx(np.mean([np.sort(q)[-1] - np.sort(q)[-2] for q in p]), rel=1e-5)
        right = [q.argmax() == y for q in p]
        events = sum(a and not b for a, b in itertools.pairwise(right))
        assert found["forgotten"][i] == (events if any(right) else EPOCHS)
        np.testing.assert_allclose(found["probability"][i].numpy(), np.mean(p, axis=0), rtol=1e-5)
    assert {t.dtype for t in found.values()} == {torch.float32}


def test_the_batch_size_does_not_matter(logits, batch_of):
    a, b = (watch(ExampleRecorder(N, CLASSIFY), logits, TARGETS, batch_of, batch_size=size) for size in (1, 9))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-6, atol=1e-7)


def test_recording_does_not_touch_the_outputs_or_the_graph(batch_of):
    outputs = torch.randn(N, CLASSES, requires_grad=True)
    before = outputs.detach().clone()
    ExampleRecorder(N, CLASSIFY)(0, batch_of(torch.arange(N), None, TARGETS), outputs)
    assert torch.equal(outputs, before)
    outputs.sum().backward()


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_regression_records_the_absolute_error(batch_of, shape):
    targets = torch.linspace(-1, 1, N)
    outputs = torch.linspace(0, 2, N).reshape(shape)
    found = watch(ExampleRecorder(N, Regression()), [outputs, outputs + 1], targets, batch_of)
    np.testing.assert_allclose(found["el2n"].numpy(), np.full(N, 1.5), rtol=1e-6)
    assert torch.equal(found["aum"], -found["el2n"])
    assert "probability" not in found


def test_values_of_many_dimensions_are_recorded_as_their_mean_error(batch_of):
    targets = torch.zeros(N, 2)
    outputs = torch.tensor([1.0, 3.0]).expand(N, 2)
    found = watch(ExampleRecorder(N, Regression()), [outputs], targets, batch_of)
    assert found["el2n"].tolist() == [2.0] * N
    assert found["loss"].tolist() == [5.0] * N


def test_of_several_labels_the_margin_is_that_of_the_one_that_is_most_wrong(batch_of):
    targets = torch.eye(3)[torch.arange(N) % 3]
    outputs = torch.randn(EPOCHS, N, 3, generator=torch.Generator().manual_seed(1))
    task = MultiLabel(("a", "b", "c"))
    found = watch(ExampleRecorder(N, task), outputs, targets, batch_of)
    assert set(found) == {"loss", "loss_deviation", "aum", "forgotten"} == set(recorded_names(task))
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs, targets.expand(EPOCHS, N, 3), reduction="none"
    ).mean(2)
    torch.testing.assert_close(found["loss"], each.mean(0))
    torch.testing.assert_close(found["loss_deviation"], each.std(0, correction=0), rtol=1e-4, atol=1e-5)
    for i in range(N):
        margin = [min(float(z if t else -z) for z, t in zip(row[i], targets[i], strict=True)) for row in outputs]
        right = [bool(((row[i] > 0) == (targets[i] > 0)).all()) for row in outputs]
        assert found["aum"][i] == pytest.approx(np.mean(margin), rel=1e-5)
        events = sum(a and not b for a, b in itertools.pairwise(right))
        assert found["forgotten"][i] == (events if any(right) else EPOCHS)


def test_of_any_other_task_the_loss_of_each_example_is_recorded(batch_of):
    masks = torch.arange(N * 4).reshape(N, 2, 2) % 2
    outputs = torch.randn(EPOCHS, N, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    found = watch(ExampleRecorder(N, Segmentation(("a", "b"))), outputs, masks, batch_of)
    each = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), masks.repeat(EPOCHS, 1, 1), reduction="none")
    assert set(found) == {"loss", "loss_deviation"}
    torch.testing.assert_close(found["loss"], each.reshape(EPOCHS, N, 4).mean((0, 2)))


def test_a_batch_may_be_large(batch_of):
    """Larger than the numbers of which Python holds one only."""
    recorder, n = ExampleRecorder(300, Regression()), torch.arange(300)
    recorder(0, batch_of(n, None, torch.zeros(300)), torch.ones(300))
    assert recorder.tensors()["el2n"].tolist() == [1.0] * 300


def test_an_example_that_was_never_seen_is_an_error_not_a_nan(batch_of):
    recorder = ExampleRecorder(N, CLASSIFY)
    recorder(0, batch_of(torch.tensor([0, 1]), None, TARGETS[:2]), torch.zeros(2, CLASSES))
    with pytest.raises(RunError, match=r"7 of 9 examples were never seen in training \(the first is 2\)"):
        recorder.tensors()


def test_outputs_of_another_shape_are_refused(batch_of):
    with pytest.raises(ShapeError, match=r"must be \(9, 4\).*got \(9, 3\)"):
        ExampleRecorder(N, CLASSIFY)(0, batch_of(torch.arange(N), None, TARGETS), torch.zeros(N, 3))
    with pytest.raises(ShapeError, match=r"got \(9, 2\)"):
        ExampleRecorder(N, Regression())(0, batch_of(torch.arange(N), None, TARGETS), torch.zeros(N, 2))


@pytest.fixture
def skewed(examples_of):
    """100 examples of class a that score high, 10 of class b that score low."""
    targets = torch.tensor([0] * 100 + [1] * 10)
    saliency = torch.cat([torch.linspace(1, 2, 100), torch.linspace(0, 0.1, 10)])
    return examples_of(torch.zeros(110, 1), targets, class_names=("a", "b")), {"el2n": saliency}


def test_the_floor_keeps_a_class_from_vanishing(skewed):
    examples, evidence = skewed
    for floor, expected in {0.0: 0, 0.5: 2, 1.0: 5}.items():
        strata = example_strata("el2n", evidence, examples, class_floor=floor, keep_fraction=0.5)
        a, b = select(strata, keep_fraction=0.5, allocation="global")
        assert [s.name for s in strata] == ["a", "b"]
        assert (a.sum(), b.sum()) == (55 - expected, expected)
        assert not expected or b[-expected:].all()


def test_a_floor_is_one_example_at_least_however_small_the_class(examples_of):
    targets = torch.tensor([0] * 60 + [1] * 3)
    examples = examples_of(torch.zeros(63, 1), targets, class_names=("a", "b"))
    evidence = {"aum": torch.cat([torch.linspace(1, 2, 60), torch.tensor([-3.0, -1.0, -2.0])])}
    for amount in ({"keep_fraction": 0.3}, {"cutoff": 1.5}):
        strata = example_strata("aum", evidence, examples, class_floor=0.5, **amount)
        _, b = select(strata, allocation="global", **amount)
        assert b.tolist() == [False, True, False]
        strata = example_strata("aum", evidence, examples, class_floor=0.0, **amount)
        assert not select(strata, allocation="global", **amount)[1].any()


def test_with_a_cutoff_the_fair_part_is_the_share_that_reaches_it(skewed):
    examples, evidence = skewed
    strata = example_strata("el2n", evidence, examples, class_floor=0.5, cutoff=1.5)
    a, b = select(strata, cutoff=1.5)
    assert a.sum() == 50
    assert b.sum() == int(0.5 * 50 / 110 * 10)


def test_only_judged_examples_are_units_and_units_are_positions(skewed):
    examples, evidence = skewed
    judged = np.zeros(110, bool)
    judged[[3, 50, 105]] = True
    a, b = example_strata("el2n", evidence, examples, judged=judged)
    assert (a.units.tolist(), b.units.tolist()) == ([3, 50], [105])
    assert a.saliency.tolist() == evidence["el2n"][[3, 50]].double().tolist()


def test_regression_is_one_stratum(examples_of):
    examples = examples_of(torch.zeros(3, 1), torch.tensor([0.5, 1.5, 2.0]), task=Regression(), n_outputs=1)
    (stratum,) = example_strata("aum", {"aum": torch.tensor([1.0, 2.0, 3.0])}, examples)
    assert (stratum.name, stratum.saliency.tolist()) == ("all", [1.0, 2.0, 3.0])
    assert stratum.min_units == 0, "nobody asked for a floor"
    (floored,) = example_strata("aum", {"aum": torch.tensor([1.0, 2.0, 3.0])}, examples, class_floor=1.0)
    assert floored.min_units == 3


def test_chance_depends_on_the_seed_only(skewed):
    examples, _ = skewed
    first, again, other = (example_strata("random", {}, examples, seed=seed)[0].saliency for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_what_is_missing_or_wrong_is_named(skewed):
    examples, evidence = skewed
    with pytest.raises(RunError, match="'aum' needs 'aum' for 110 examples: got only el2n"):
        example_strata("aum", evidence, examples)
    with pytest.raises(RunError, match="got 7 of them"):
        example_strata("el2n", {"el2n": torch.zeros(7)}, examples)
    with pytest.raises(UnknownNameError, match="did you mean 'el2n'"):
        example_strata("eln2", evidence, examples)
    with pytest.raises(RecipeError, match="class_floor must be in"):
        example_strata("el2n", evidence, examples, class_floor=1.5)


def test_who_names_no_seed_gets_the_first(skewed):
    examples, _ = skewed
    assert (
        example_strata("random", {}, examples)[0].saliency == example_strata("random", {}, examples, seed=0)[0].saliency
    ).all()


def test_the_catalogue_says_what_each_criterion_of_examples_takes():
    rows = {row["name"]: row for row in criteria_table() if row["section"] == "examples.remove"}
    assert set(rows) == set(example_criteria)
    assert {row["needs"] for name, row in rows.items() if name != "random"} == {"a short training"}
    assert rows["random"]["needs"] == ""
    assert all(row["judges"] == "example" and row["training"] == "" and row["summary"] for row in rows.values())


def test_the_catalogue_says_which_penalty_is_trained_with_and_what_is_read():
    rows = {row["name"]: row for row in criteria_table() if row["section"] == "strategy"}
    assert set(rows) == set(criteria)
    for name, row in rows.items():
        assert row["training"] == {"l1": "l1", "bn_scale": "bn_scale", "l0": "l0"}.get(name, "")
        assert (
            row["needs"].split(", ") == [need for need in criteria[name].needs if need != "noise"] or name == "random"
        )
        assert (row["summary"], row["reference"]) == (criteria[name].summary, criteria[name].reference)
