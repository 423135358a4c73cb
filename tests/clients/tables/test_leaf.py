"""LEAF's JSON: users as clients, numbers and texts, and refusals that name the file and the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core.errors import DataError, UserError
from clients.core.population import Population
from clients.federation.data_kinds import build_population
from clients.partition.options import IidOptions, NaturalOptions
from clients.tables.options import TableOptions
from clients.tables.rows.leaf import character_ids


def leaf(path: Path, users: dict[str, tuple[list[Any], list[Any]]], /, **changes: Any) -> Path:
    """Write one file in LEAF's form."""
    content = {
        "users": list(users),
        "num_samples": [len(x) for x, _ in users.values()],
        "user_data": {user: {"x": x, "y": y} for user, (x, y) in users.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes))
    return path


def read(path: Path, task: str = "classification", partition: Any = None, **options: Any) -> Population:
    given_options: dict[str, Any] = {"path": str(path), "layout": "leaf", "task": task, **options}
    return build_population(TableOptions(**given_options), partition, seed=0)


def numbers(rows: int, start: int = 0) -> tuple[list[Any], list[Any]]:
    return [[float(start + i), 0.5] for i in range(rows)], [3 * (i % 2) for i in range(rows)]


def notice(population: Population, start: str) -> str:
    return next(n for n in population.federation.notices if n.startswith(start))


def test_users_are_clients_with_their_own_examples(tmp_path: Path) -> None:
    leaf(tmp_path / "train" / "a.json", {"u2": numbers(4), "u1": numbers(3, 100)})
    leaf(tmp_path / "test" / "b.json", {"u1": numbers(2, 200), "u2": numbers(1, 300)})
    population = read(tmp_path, validation_fraction=0.0)
    assert [population.federation.client_name(k) for k in range(2)] == ["u2", "u1"]
    assert population.sizes.tolist() == [4, 3]
    assert population.cohort(np.array([1])).client(0).features[:, 0].tolist() == [100, 101, 102]
    assert population.cohort(np.array([1])).client(0).targets.tolist() == [0, 1, 0]
    assert population.federation.record["classes"] == "0, 3"
    assert population.test is not None
    assert population.test.features[:, 0].tolist() == [200, 201, 300]
    assert population.central.test is not None
    assert population.central.test.owners is not None
    assert population.central.test.owners.tolist() == [1, 1, 0]
    assert population.clients.held_out is not None
    assert population.clients.held_out(np.array([0])).client(0).features[:, 0].tolist() == [300]
    assert "0 = 0 (6), 1 = 3 (4)" in notice(population, "classes of 'y'")


def test_test_users_who_train_nowhere_are_central_alone(tmp_path: Path) -> None:
    leaf(tmp_path / "train" / "a.json", {"u1": numbers(4)})
    leaf(tmp_path / "test" / "a.json", {"new": numbers(2, 50)})
    population = read(tmp_path, validation_fraction=0.0)
    assert population.num_clients == 1
    assert population.test is not None
    assert len(population.test) == 2
    assert population.clients.held_out is None
    assert notice(population, "users of the folder test who are not in train").endswith(": 1")


def test_files_of_one_user_join(tmp_path: Path) -> None:
    leaf(tmp_path / "1.json", {"u1": numbers(2), "u2": numbers(1, 10)})
    leaf(tmp_path / "2.json", {"u1": numbers(2, 20)})
    population = read(tmp_path, validation_fraction=0.0, test_fraction=0.0)
    assert population.sizes.tolist() == [4, 1]
    assert population.cohort(np.array([0])).client(0).features[:, 0].tolist() == [0, 1, 20, 21]


def test_users_can_be_chosen(tmp_path: Path) -> None:
    leaf(tmp_path / "train" / "a.json", {"u": numbers(2), "v": numbers(3, 10), "w": numbers(4, 20)})
    leaf(tmp_path / "test" / "a.json", {"u": numbers(1, 50), "w": numbers(2, 60)})
    population = read(tmp_path, validation_fraction=0.0, clients=("w", "v"))
    assert population.sizes.tolist() == [3, 4]
    assert population.cohort(np.array([1])).client(0).features[:, 0].tolist() == [20, 21, 22, 23]
    assert population.test is not None
    assert population.test.features[:, 0].tolist() == [60, 61]
    assert read(tmp_path, validation_fraction=0.0, exclude=("u",)).sizes.tolist() == [3, 4]
    with pytest.raises(DataError, match="'x' is not a client"):
        read(tmp_path, exclude=("x",))


def test_nested_numbers_keep_their_shape(tmp_path: Path) -> None:
    image = [[[1, 2, 3], [4, 5, 6]]]
    path = leaf(tmp_path / "a.json", {"u": ([image, image, image], [0, 1, 0])})
    population = read(path, validation_fraction=0.0, test_fraction=0.0)
    assert population.feature_shape == (1, 2, 3)
    assert population.cohort(np.array([0])).client(0).features[0].tolist() == image


def test_regression_scales_x_and_y_by_the_training_examples(tmp_path: Path) -> None:
    leaf(tmp_path / "train" / "a.json", {"u": ([[0.0], [2.0]], [10.0, 30.0])})
    leaf(tmp_path / "test" / "a.json", {"u": ([[4.0]], [50.0])})
    population = read(tmp_path, "regression", validation_fraction=0.0, scale="global")
    data = population.cohort(np.array([0])).client(0)
    assert data.features.tolist() == [[-1.0], [1.0]]
    assert data.targets.tolist() == [[-1.0], [1.0]]
    assert population.test is not None
    assert population.test.features.tolist() == [[3.0]]
    assert population.test.targets.tolist() == [[3.0]]
    assert population.federation.record["target_mean"] == 20.0


def test_partition_deals_out_the_examples_of_all_users(tmp_path: Path) -> None:
    path = leaf(tmp_path / "a.json", {"u": numbers(6), "v": numbers(6, 10)})
    dealt = read(path, partition=IidOptions(clients=4), validation_fraction=0.0, test_fraction=0.0)
    assert dealt.sizes.tolist() == [3, 3, 3, 3]
    everyone = dealt.cohort(np.arange(4))
    assert sorted(everyone.features[torch.from_numpy(everyone.rows), 0].tolist()) == [*range(6), *range(10, 16)]
    by_user = read(path, partition=NaturalOptions(key="user"), validation_fraction=0.0, test_fraction=0.0)
    assert by_user.sizes.tolist() == [6, 6]


def test_text_becomes_ids_of_the_training_characters(tmp_path: Path) -> None:
    leaf(tmp_path / "train" / "a.json", {"u": (["abc", "bca"], ["d", "a"])})
    leaf(tmp_path / "test" / "a.json", {"u": (["zab"], ["a"])})
    population = read(tmp_path, validation_fraction=0.0)
    data = population.cohort(np.array([0])).client(0)
    assert data.features.dtype == torch.int32
    assert data.features.tolist() == [[1, 2, 3], [2, 3, 1]]
    assert data.targets.tolist() == [1, 0]
    assert population.test is not None
    assert population.test.features.tolist() == [[0, 1, 2]]
    assert population.federation.record["vocabulary"] == "abc"
    assert population.federation.record["classes"] == "a, d"
    assert "characters unseen in training: 1; a model starts with an embedding of 4 ids" in notice(
        population, "text as ids"
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=6), min_size=1, max_size=8), st.data())
def test_ids_spell_the_texts_again(texts: list[str], data: st.DataObject) -> None:
    training = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), np.bool_)
    ids, vocabulary, _ = character_ids(texts, training)
    known = {c for text, is_training in zip(texts, training, strict=True) if is_training for c in text}
    assert vocabulary == "".join(sorted(known))
    for row, text in zip(ids, texts, strict=True):
        wanted = [c if c in known else None for c in text]
        assert [vocabulary[i - 1] if i else None for i in row[len(row) - len(text) :]] == wanted
        assert not row[: len(row) - len(text)].any()


@pytest.mark.parametrize(
    ("users", "changes", "words"),
    [
        ({"u": numbers(2)}, {"num_samples": [3]}, "a.json, user 'u': num_samples is 3, and there are 2 x and 2 y"),
        ({"u": numbers(2)}, {"num_samples": [2, 2]}, "lists of one length"),
        ({"u": numbers(2)}, {"users": ["v"]}, "a.json, user 'v': user_data must have"),
        ({"u": ([[1, 2], [3]], [0, 1])}, {}, "a.json, user 'u': x must be numbers of one shape"),
        ({"u": ([[1], [None]], [0, 1])}, {}, "user 'u': x must be numbers of one shape"),
        ({"u": numbers(2), "v": ([[1.0], [2.0]], [0, 1])}, {}, "user 'v': x is numbers of shape [1] an example"),
        ({"u": numbers(2), "v": (["ab", "cd"], [0, 1])}, {}, "user 'v': x is a text an example"),
        ({"u": (["1.jpg", "2.jpg"], [0, 1])}, {}, "'1.jpg', the name of a picture"),
        ({"u": ([["12", "a tweet"], ["13", "b"]], [0, 4])}, {}, "list of 2 texts an example"),
        ({"u": (["ab", 3], ["c", "d"])}, {}, "user 'u', example 1: x is int among texts"),
        ({"u": ([[1.0], [float("nan")]], [0, 1])}, {}, "must be finite"),
        ({"u": ([], [])}, {}, "holds no example"),
        ({"u": ([[1.0], [2.0]], [5, 5])}, {}, "one class alone, '5'"),
    ],
)
def test_bad_file_is_refused_with_file_and_user(
    tmp_path: Path, users: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(leaf(tmp_path / "a.json", users, **changes))
    assert words in str(caught.value)


def test_file_that_is_no_json_or_not_in_leafs_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"users": [')
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"data": 1}')
    with pytest.raises(DataError, match="has no 'users'; it has data"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"target": "y"}, "target"),
        ({"id_column": "user"}, "id_column"),
        ({"categorical": ("x",)}, "categorical"),
        ({"gaps": "drop"}, "gaps"),
        ({"window": 24}, "window"),
        ({"task": "forecast"}, "layout"),
    ],
)
def test_key_without_meaning_for_leaf_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError) as caught:
        TableOptions(**{"path": "a.json", "layout": "leaf", "task": "classification", **options})
    assert caught.value.field == field


def test_scale_by_client_is_refused_for_leaf(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"features\.normalise = 'client'"):
        read(leaf(tmp_path / "a.json", {"u": numbers(5)}), scale="client")


def test_key_without_effect_on_the_files_is_refused(tmp_path: Path) -> None:
    leaf(tmp_path / "train" / "a.json", {"u": (["abc", "bca"], ["d", "a"])})
    with pytest.raises(UserError, match="scale: is 'global', and x is text"):
        read(tmp_path, scale="global")
    leaf(tmp_path / "test" / "a.json", {"u": (["zab"], ["a"])})
    with pytest.raises(UserError, match="test_fraction: has no effect where the folder test"):
        read(tmp_path, test_fraction=0.3)
