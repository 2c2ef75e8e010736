"""A model that is handed over as trained is taken as it is, and a job in Python is no silent one."""

import io
import logging

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import DataError, ModelError, RecipeError
from prunus.core.events import Event
from prunus.core.narrate import Narrator
from prunus.core.recipes.recipe import Data
from prunus.core.recipes.recipe_file import make_recipe
from prunus.data import prepare_arrays
from prunus.evaluate import observe
from prunus.pipeline.jobs.given_weights import worse_than_guessing

DRAW = torch.Generator().manual_seed(0)
INPUTS = 50 + 20 * torch.randn(400, 6, generator=DRAW)
LABELS = (INPUTS[:, 0] + INPUTS[:, 1] > 100).long()


def solved():
    """Return a network that answers from raw inputs, rightly."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[:2, :2] = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
        model[0].bias[:2] = torch.tensor([-100.0, 100.0])
        model[2].weight[1, 0] = model[2].weight[0, 1] = 1.0
    return model


def made(**options):
    told = []
    optimizer = ModelOptimizer(
        solved(), (INPUTS, LABELS), strategy="magnitude_l2", seeds=[0], listener=told.append, **options
    )
    return optimizer, told


def test_a_trained_model_is_not_trained_again_and_gets_its_inputs_as_they_are():
    optimizer, told = made(trained=True, recovery={"method": "none"})
    optimizer.fit()
    for name, value in solved().state_dict().items():
        assert torch.equal(optimizer.model_.state_dict()[name], value)
    assert optimizer.evaluate()["test"].value("accuracy") == 1.0
    assert not any("train" in event.stage for event in told)
    assert optimizer.prune(keep_fraction=0.5).evaluate()["test"].value("accuracy") == 1.0


def test_a_trained_model_that_knows_raw_inputs_is_not_measured_on_scaled_ones():
    optimizer, _ = made(trained=True, data_options={"standardize": True})
    with pytest.raises(
        ModelError, match=r"better on inputs that are scaled in another way: 100.0 % right with data.standardi"
    ) as e:
        optimizer.fit()
    assert "\n" not in str(e.value)
    asked, _ = made(trained=True, data_options={"standardize": True, "check_weights": False})
    assert asked.fit().evaluate()["test"].value("accuracy") < 0.9


LIGHT = torch.rand(400, 1, 1, 1, generator=DRAW) * 255
PIXELS = (LIGHT + 20 * torch.randn(400, 3, 4, 4, generator=DRAW)).clamp(0, 255).round()
BRIGHT = (PIXELS.mean(dim=(1, 2, 3)) > 127.5).long()


def of_pixels_from_0_to_1():
    """Return a network that tells bright images from dark ones, if pixels go from 0 to 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-50.0 / 48], [50.0 / 48]]).expand(2, 48))
        model[1].bias.copy_(torch.tensor([25.0, -25.0]))
    return model


def test_weights_for_pixels_from_0_to_1_stop_on_those_up_to_255_and_run_when_the_recipe_says_so():
    with pytest.raises(ModelError, match=r"scaled in another way: 100.0 % right with data.scale: 255"):
        ModelOptimizer(of_pixels_from_0_to_1(), (PIXELS, BRIGHT), trained=True).fit()
    given = ModelOptimizer(of_pixels_from_0_to_1(), (PIXELS, BRIGHT), trained=True, data_options={"scale": 255}).fit()
    assert given.evaluate()["test"].value("accuracy") > 0.95


def test_weights_that_only_guess_stop_the_run():
    torch.manual_seed(0)
    labels = torch.randint(0, 10, (900,))
    with pytest.raises(ModelError, match=r"no better than guessing: \d.* look at the scaling of the inputs"):
        ModelOptimizer(nn.Linear(6, 10), (torch.randn(900, 6), labels), trained=True).fit()


def test_a_rare_class_that_is_found_at_the_price_of_false_alarms_is_no_guess():
    torch.manual_seed(0)
    x = torch.randn(2000, 1)
    labels = (x[:, 0] > 1.64).long()  # one in twenty
    model = nn.Sequential(nn.Linear(1, 2))
    with torch.no_grad():  # finds all of them, and as many others: less accurate than never saying so
        model[0].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model[0].bias.copy_(torch.tensor([1.0, -1.0]))
    optimizer = ModelOptimizer(model, (x, labels), trained=True).fit()
    assert optimizer.evaluate()["test"].value("accuracy") < 0.95
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-20.0, 20.0]))
    with pytest.raises(ModelError, match=r"no better than guessing: 50.0 % right .* guessing has 50.0 % right;"):
        ModelOptimizer(model, (x, (x[:, 0] > 0).long()), trained=True).fit()


def test_a_regression_that_explains_less_than_nothing_stops_the_run():
    torch.manual_seed(0)
    values = INPUTS[:, 0]
    model = nn.Sequential(nn.Linear(6, 1))
    with pytest.raises(ModelError, match=r"no better than guessing: R² -|scaled in another way"):
        ModelOptimizer(model, (INPUTS, values), trained=True).fit()
    with torch.no_grad():
        model[0].weight.zero_()[0, 0] = 1.0
        model[0].bias.zero_()
    assert ModelOptimizer(model, (INPUTS, values), trained=True).fit().evaluate()["test"].value("r2") == pytest.approx(
        1
    )


@pytest.mark.parametrize(
    ("said", "oracle"),
    [
        ({"scale": 255}, lambda x: x / 255),
        ({"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]}, lambda x: (x - M) / S),
        ({"scale": 255, "mean": 0.5, "std": 0.25}, lambda x: (x / 255 - 0.5) / 0.25),
        ({"standardize": False}, lambda x: x),
    ],
)
def test_a_recipe_says_the_scaling_that_weights_were_trained_with(said, oracle):
    data = prepare_arrays(PIXELS, BRIGHT, Data(source="arrays", **said))
    rows = data.test.rows
    found = next(iter(data.test.batches(len(rows)))).inputs
    assert torch.allclose(found, oracle(PIXELS[rows]), atol=1e-6)


M, S = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1), torch.tensor([4.0, 5.0, 6.0]).reshape(3, 1, 1)


def test_scaling_belongs_to_the_model():
    def scaling(**sections):
        return make_recipe({"data": {"source": "x.npz", **sections.pop("data", {})}, **sections}, "here").data

    assert scaling().standardize is True
    assert scaling(model={"weights": "w.safetensors"}).standardize is False
    assert scaling(data={"scale": 255}).standardize is False
    assert scaling(model={"weights": "w.safetensors"}, data={"standardize": True}).standardize is True
    with pytest.raises(RecipeError, match="take one of the two away"):
        scaling(data={"scale": 255, "standardize": True})
    with pytest.raises(RecipeError, match="std must be above 0"):
        scaling(data={"std": [0.0]})
    with pytest.raises(DataError, match=r"data.mean: expected 1 number or 3"):
        prepare_arrays(PIXELS, BRIGHT, Data(source="arrays", mean=(1.0, 2.0)))


def test_a_model_that_knows_scaled_inputs_is_not():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    model = ModelOptimizer(network, (INPUTS, LABELS), train={"epochs": 30, "learning_rate": 0.01}).fit().model_
    told = []
    ModelOptimizer(
        model, (INPUTS, LABELS), trained=True, data_options={"standardize": True}, listener=told.append
    ).fit()
    assert not any(event.kind == "warning" for event in told)


def narrated(*events, seconds=()):
    ticks, stream = iter((0.0, *seconds)), io.StringIO()
    narrator = Narrator(stream, every_s=3.0, clock=lambda: next(ticks))
    for event in events:
        narrator(event)
    return stream.getvalue().splitlines()


def test_progress_is_told_every_few_seconds_and_all_else_at_once():
    steps = [Event("progress", "seed 0 / train", done=n, total=9, facts={"loss": 1 / n}) for n in (1, 2, 3)]
    lines = narrated(
        Event("start", "seed 0 / train"),
        *steps,
        Event("note", "load data", "8 twins"),
        Event("warning", "load data", "no labels"),
        Event("end", "seed 0 / train", facts={"seconds": 1.26}),
        seconds=(1.0, 4.0, 4.0, 5.0),
    )
    assert lines == [
        "seed 0 / train: 2 of 9, loss 0.5",
        "load data: 8 twins",
        "warning: load data: no labels",
        "seed 0 / train: done in 1.3 s",
    ]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_on_a_terminal_progress_is_a_bar_in_one_line_that_gives_way_to_what_comes_next():
    ticks, stream = iter((0.0, 0.0, 0.0, 0.05, 3.0, 3.0, 4.0, 4.0)), Terminal()
    narrator = Narrator(stream, clock=lambda: next(ticks))
    for done in (1, 2, 3, 4):
        narrator(Event("progress", "prune / compare", done=done, total=4, facts={"loss": 0.5}))
    narrator(Event("note", "prune", "done"))
    drawn = stream.getvalue().split("\r")
    assert [line.partition("\x1b")[0] for line in drawn] == [
        "",
        f"prune / compare {'━' * 6}{'·' * 18} 1 of 4, loss 0.5",
        f"prune / compare {'━' * 18}{'·' * 6} 3 of 4, 1 s left, loss 0.5",
        f"prune / compare {'━' * 24} 4 of 4, loss 0.5",
        "",
    ], "the second came too soon"
    assert stream.getvalue().endswith("\r\x1b[Kprune: done\n")


def test_a_terminal_without_such_characters_gets_others():
    stream = Terminal()
    stream.encoding = "latin-1"
    Narrator(stream)(Event("progress", "fit", done=1, total=2))
    assert "#" * 12 + "." * 12 in stream.getvalue()


def test_where_nobody_watches_the_logger_is_told_and_warnings_stand_out(caplog, capfd):
    with caplog.at_level(logging.INFO, logger="prunus"):
        ModelOptimizer(solved(), (INPUTS, LABELS), strategy=None, train={"epochs": 1}, seeds=[0]).fit()
        Narrator()(Event("warning", "a", "b"))
    assert "seed 0 / train: done in" in caplog.text
    assert [record.levelname for record in caplog.records if record.message == "warning: a: b"] == ["WARNING"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("watched", [True, False])
def test_a_terminal_gets_lines_on_standard_error_without_being_asked(watched, monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: watched
    monkeypatch.setattr("sys.stderr", stream)
    ModelOptimizer(solved(), (INPUTS, LABELS), strategy=None, train={"epochs": 1}, seeds=[0]).fit()
    assert ("seed 0 / train: done in" in stream.getvalue()) == watched


class _By(nn.Module):
    """Answers by a function of the inputs."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, inputs):
        return self.answer(inputs[:, 0])


def _says(named):
    return _By(lambda x: torch.eye(3)[torch.full(x.shape, named, dtype=torch.int64)])


def test_a_dense_model_that_knows_nothing_is_said_to_be_no_measure():
    x = torch.arange(300.0).reshape(300, 1)
    labels = torch.tensor([0] * 20 + [1] * 40 + [2] * 240)
    data = prepare_arrays(x, labels, Data(source="arrays", standardize=False))
    test = data.test

    def said(model):
        return worse_than_guessing(test.task, observe(model, test, test.task), test.known_targets)

    assert said(_says(2)) == ""  # as often right as who always says it
    n = len(test)
    right, often = ((test.known_targets == number).float().mean() * 100 for number in (1, 2))
    assert f"({right:.1f} % against {often:.1f} % of {n} test examples)" in said(_says(1))
    assert said(_says(1)).startswith("the dense model is right less often than who always says the most frequent class")
    # It finds two classes of three, if not the frequent one: that is no chance.
    assert said(_By(lambda x: torch.eye(3)[torch.where(x < 20, 0, 1)])) == ""
    assert worse_than_guessing(test.task, observe(_says(1), test, test.task), None) == ""


def test_a_dense_model_of_values_that_explains_less_than_their_mean_is_said_to_be_no_measure():
    x = torch.arange(200.0).reshape(200, 1)
    test = prepare_arrays(x, x[:, 0] * 2.5 + 0.5, Data(source="arrays", standardize=False)).test
    for answer, wrong in ((torch.neg, True), (lambda x: (x - 99.5) / 57.7, False)):
        seen = observe(_By(answer), test, test.task)
        said = worse_than_guessing(test.task, seen, test.known_targets)
        assert said.startswith("the dense model does no better than the mean of the targets (R²") == wrong
