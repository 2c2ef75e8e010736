"""What a recipe file may say, and what each mistake answers."""

from pathlib import Path

import pytest
import yaml

from patience import no_hang
from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe_file import load_recipe, make_recipe, override, parse_yaml

BASE = {"data": {"source": "sklearn:digits"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E+2", 100.0),
        ("-2e3", -2000.0),
        ("1.5e-4", 0.00015),
        ("12", 12),
        ("2:4", "2:4"),  # a granularity, not the 124 of YAML 1.1
        ("0x1f", 31),
        ("-07", -7),
        ("abc", "abc"),
        ("1e", "1e"),
        ("e3", "e3"),
    ],
)
def test_scientific_notation_is_a_number_and_words_stay_words(text, value):
    assert parse_yaml(text, "t") == value


def test_a_recipe_reads_back_from_its_own_resolved_form():
    recipe = make_recipe(
        {
            **BASE,
            "strategy": {"keep_fraction": 0.25},
            "examples": {"remove": [{"criterion": "aum", "keep_fraction": 0.9}]},
        }
    )
    again = make_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))))
    assert again == recipe


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({**BASE, "stratgy": {}}, ["unknown key 'stratgy'", "did you mean 'strategy'?"]),
        ({"data": {"sorce": "x"}}, ["unknown key 'data.sorce'", "did you mean 'source'?", "1 more mistake"]),
        ({**BASE, "examples": {"remove": [{"keepfraction": 1}]}}, ["examples.remove.0.keepfraction", "keep_fraction"]),
        ({**BASE, "strategy": {"keep_fraction": 0}}, ["strategy.keep_fraction", "greater than 0", "got 0"]),
        (
            {**BASE, "strategy": {"keep_fraction": 1.5}},
            ["strategy.keep_fraction", "less than or equal to 1", "got 1.5"],
        ),
        ({**BASE, "strategy": {"keep_fraction": float("nan")}}, ["strategy.keep_fraction", "finite", "got nan"]),
        ({**BASE, "strategy": {"keep_fraction": "half"}}, ["strategy.keep_fraction", "number", "got 'half'"]),
        ({**BASE, "strategy": {"keep_fraction": 0.5, "cutoff": 0.1}}, ["strategy", "not both"]),
        (
            {**BASE, "strategy": {"granularity": "chanel"}},
            ["strategy.granularity", "'weight', 'channel', 'head'", "got 'chanel'"],
        ),
        ({**BASE, "train": {"epochs": "many"}}, ["train.epochs", "integer", "got 'many'"]),
        ({**BASE, "seeds": [1, 1]}, ["seeds", "once"]),
        ({**BASE, "seeds": []}, ["seeds: expected at least 1 item, got []"]),
        ({**BASE, "sizes": {"keep_fractions": []}}, ["sizes.keep_fractions: expected at least 2 items, got []"]),
        ({**BASE, "export": {"to": [""]}}, ["export.to.0: expected at least 1 character, got ''"]),
        ({**BASE, "seeds": 0}, ["seeds: expected a list, got 0"]),
        ({"model": {"builder": "cnn"}}, ["'data' is missing"]),
        ({**BASE, "data": {"source": "x", "split": {"test": 0.9}}}, ["data.split", "must be < 1"]),
        ([], ["mapping"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key_and_what_came(tree, words):
    with pytest.raises(RecipeError) as caught:
        make_recipe(tree, "r.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("r.yaml: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize("text", ["a: 1\na: 2", "x: {b: 1, b: 1}"])
def test_a_key_given_twice_is_refused_with_its_line(text):
    with pytest.raises(RecipeError, match=r"line \d.*given twice"):
        parse_yaml(text, "r.yaml")


def test_what_is_not_yaml_is_told_with_its_line():
    with pytest.raises(RecipeError, match=r"^r\.yaml: line 2: this is not valid YAML: expected ',' or '\}'"):
        parse_yaml("a: 1\ntrain: {epochs: 8 rate: 3}", "r.yaml")


def test_yaml_that_would_build_an_object_is_refused():
    with pytest.raises(RecipeError, match="not valid YAML"):
        parse_yaml("!!python/object/apply:os.system ['true']", "r.yaml")


def test_overrides_win_over_the_file_and_leave_it_alone(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text("data: {source: x}\nstrategy: {keep_fraction: 0.5}\nseeds: [0, 1]\n")
    recipe = load_recipe(path, ["strategy.keep_fraction=0.3", "train.learning_rate=1e-4", "seeds.1=7", "features={}"])
    assert recipe.strategy is not None
    assert (recipe.strategy.keep_fraction, recipe.train.learning_rate, recipe.seeds) == (0.3, 1e-4, (0, 7))
    assert "0.5" in path.read_text()


@pytest.mark.parametrize("assignment", ["strategy", "=3", "seeds.9=1", "seeds.0.x=1", "a..b=1"])
def test_a_malformed_override_is_named(assignment):
    with pytest.raises(RecipeError, match="override"):
        override({"seeds": [0, 1]}, [assignment])


def test_a_missing_or_binary_recipe_is_one_line(tmp_path: Path):
    with pytest.raises(RecipeError, match="no recipe at"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(tmp_path / "b.yaml")


def _grown(opened: str, first: str, closed: str) -> str:
    """Nine lines, each of which names the one before ten times."""
    lines = [
        f"a0: &a0 {first}",
        *(f"a{i}: &a{i} {opened}{', '.join([f'*a{i - 1}'] * 10)}{closed}" for i in range(1, 10)),
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_grown("[", "x", "]"), "aliases written out, got more"),
        (_grown("{<<: [", "{k: 1}", "]}"), "aliases written out, got more"),
        ("a: &a [*a]", "stands for something that holds it"),
        ("[" * 50_000, "at most 100 levels"),
        ("- " * 300 + "a", "at most 100 levels"),
        ("a: " + "9" * 5_000, "at most 400 digits"),
        ("a: 0x" + "f" * 100_000, "at most 400 digits"),
        ("a: " + "b" * 300_000, "at most 131072 letters"),
        ("[" + "a," * 60_000 + "]", "at most 20000 values"),
        ("[" + "a," * 25_000 + "@ this can't be read", "at most 20000 values"),
        ("[" * 2_000 + "@ this can't be read", "at most 100 levels"),
        ("!!bool maybe", "not valid YAML"),
        ('!!int ""', "not valid YAML"),
        ("!!timestamp soon", "not valid YAML"),
        ("!!map [1]", "not valid YAML"),
    ],
)
def test_a_bomb_of_yaml_is_refused_in_one_line_and_soon(text, words):
    with no_hang(), pytest.raises(RecipeError, match=words) as caught:
        parse_yaml(text, "here")
    assert "\n" not in str(caught.value)


def test_an_honest_alias_stands_for_its_value():
    assert parse_yaml("a: &a {k: [1, 2]}\nb: *a\nc: {<<: *a, d: 3}", "here")["c"] == {"k": [1, 2], "d": 3}


def test_a_mistake_in_a_huge_value_is_one_short_line():
    with pytest.raises(RecipeError) as caught:
        make_recipe({"data": {"source": ["x" * 50] * 1000}})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"criterion": "taylor"}, r"unknown key 'criterion': did you mean .*strategy.criterion"),
        (
            {"train": {"keep_fraction": 0.5}},
            r"unknown key 'train.keep_fraction': did you mean .*strategy.keep_fraction",
        ),
        ({"seed": 3}, r"unknown key 'seed': did you mean 'seeds'\?"),
        ({"modle": {}}, r"unknown key 'modle': did you mean 'model'\?"),
        ({"data": {"source": "x.csv", "label": "y"}}, r"unknown key 'data\.label': did you mean 'target'\?"),
        ({"train": {"lr": 0.1}}, r"unknown key 'train\.lr': did you mean 'learning_rate'\?"),
        ({"strategy": {"sparsity": 0.5}}, r"unknown key 'strategy\.sparsity': did you mean 'keep_fraction'\?"),
        ({"data": {"source": "x.csv", "label_nois": 0.1}}, r"did you mean 'label_noise'\?"),
    ],
)
def test_a_key_in_the_wrong_section_is_told_its_own(tree, words):
    with pytest.raises(RecipeError, match=words):
        make_recipe({"data": {"source": "sklearn:iris"}, **tree})


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"data": {"source": "x.npy", "in_memory": "maybe"}},
            "recipe: data.in_memory: expected true or false or 'auto', got 'maybe'",
        ),
        (
            {"strategy": {"round_to": "x"}, "train": {"epochs": "x"}},
            "recipe: train.epochs: expected a valid integer, unable to parse string as an integer, got 'x' (and 1 more mistake)",
        ),
    ],
)
def test_a_value_of_several_kinds_is_one_mistake_that_names_its_key(tree, words):
    with pytest.raises(RecipeError) as caught:
        make_recipe({"data": {"source": "sklearn:iris"}, **tree})
    assert str(caught.value) == words
