"""Every algorithm of the table has the properties listed here."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from federations import Federation, engine_options, quadratics
from hypothesis import given, settings
from hypothesis import strategies as st

import fedscape
from clients.models.options import SoftmaxOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from server.algorithms import options as kinds
from server.algorithms.aggregation import ClientFacts
from server.algorithms.build import build_algorithm, local_for
from server.algorithms.table import ALGORITHMS
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

ROWS = {
    "fedavg": kinds.FedAvgOptions(),
    "fedavg, uniform": kinds.FedAvgOptions(weighting="uniform"),
    "fedavg, unbiased": kinds.FedAvgOptions(weighting="unbiased", server_lr=0.8),
    "fedsgd": kinds.FedSgdOptions(),
    "fedavgm": kinds.FedAvgMOptions(server_lr=0.5, server_momentum=0.5),
    "fedprox": kinds.FedProxOptions(mu=0.3),
    "fedadam": kinds.FedAdamOptions(server_lr=0.1, tau=0.1, beta1=0.5, beta2=0.9),
    "fedyogi": kinds.FedYogiOptions(server_lr=0.2, tau=0.1, beta1=0.5),
    "fedadagrad": kinds.FedAdagradOptions(server_lr=0.5, tau=0.1),
    "scaffold, option 1": kinds.ScaffoldOptions(option=1),
    "scaffold, option 2": kinds.ScaffoldOptions(option=2),
    "fednova": kinds.FedNovaOptions(),
    "fednova, mu": kinds.FedNovaOptions(mu=0.2, weighting="uniform"),
    "feddyn": kinds.FedDynOptions(alpha=0.5),
    "reptile": kinds.ReptileOptions(server_lr=0.7),
    "fomaml": kinds.FomamlOptions(server_lr=0.3, weighting="examples"),
}
"""One or more examples of every row."""
GRADIENT_DESCENT = ("fedavg", "fedavg, uniform", "fedsgd", "fedprox", "scaffold, option 1", "scaffold, option 2",
                    "fednova", "fednova, mu")  # fmt: skip
"""Those which, over one full-batch step of everyone, are gradient descent."""
PARTIAL = 4
"""A cohort of some of the six clients below."""

every_row = pytest.mark.parametrize("name", ROWS)
pytestmark = pytest.mark.usefixtures("one_thread")
both_engines = pytest.mark.parametrize("engine", ["plain", "stacked"])

SIZES = (12, 5, 9, 1, 7, 3)
CLASSES, FEATURES = 3, 4


def examples(label):
    """Return the data of client `label`; every integer has a client."""
    random, n = np.random.default_rng((7, label)), SIZES[label % len(SIZES)]
    return random.normal(size=(n, FEATURES)) + 0.3 * label, random.integers(0, CLASSES, n)


def classifier(name, *, labels=tuple(range(6)), engine="stacked", seed=0, dtype="float64", cohort=None, **more):
    """Make a federation of softmax regressions under the row `name`; client k holds the data of labels[k]."""
    options = more.pop("algorithm", None) or replace(ROWS[name], cohort=cohort)
    planned = engine_options(engine, tile=more.pop("tile", 1000), keep_bytes=more.pop("keep_bytes", 1 << 30))
    data = custom_population(
        lambda k: examples(labels[k]), [SIZES[label % len(SIZES)] for label in labels], outputs=CLASSES,
        dtype=getattr(torch, dtype)
    )  # fmt: skip
    local = LocalOptions(**{"local_lr": 0.1, "batch_size": 4, "local_epochs": 2} | more)
    local = local_for(options, local)  # fedsgd fixes local work, and a scenario refuses another
    scenario = Scenario(model=SoftmaxOptions(), local=local, algorithm=options, engine=planned,
                        evaluation=EvaluationOptions(federated_every=0),
                        run=RunOptions(seed=seed, dtype=dtype, rounds=3))  # fmt: skip
    return Federation(scenario, data=data)


def test_list_has_every_algorithm():
    assert {o.kind for o in ROWS.values()} == set(ALGORITHMS)
    assert all(ALGORITHMS[kind].options().kind == kind for kind in ALGORITHMS)


@every_row
def test_options_are_frozen_and_strict(name):
    with pytest.raises(TypeError, match="unknown_key"):
        type(ROWS[name])(unknown_key=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROWS[name].cohort = 1
    row = build_algorithm(ROWS[name], LocalOptions())
    assert row.name == ROWS[name].kind


@every_row
@pytest.mark.parametrize("cohort", [None, 2])
def test_identical_clients_reach_the_common_minimum(name, cohort):
    hessian, centre = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -2.0])
    federation = quadratics([hessian] * 4, [centre] * 4, algorithm=replace(ROWS[name], cohort=cohort), local_lr=0.3,
                            local_steps=2)  # fmt: skip
    away = np.linalg.norm(federation.step(80).numpy() - centre, axis=1)
    assert away[-1] < 1e-3
    assert away[-20:].max() < 1e-2


@pytest.mark.parametrize("name", GRADIENT_DESCENT)
def test_full_step_of_all_clients_is_gradient_descent(name):
    """K = 1 and full participation: w - local_lr grad f(w) over several rounds, f with the weights of the row."""
    one = {"batch_size": "full", "local_epochs": None, "local_steps": 1}
    federation = classifier(name, **one)
    by_examples = getattr(ROWS[name], "weighting", "uniform") == "examples"
    w = federation.params
    pairs = [examples(k) for k in range(6)]
    for after in federation.step(4):
        total = torch.zeros_like(w)
        for x, y in pairs:
            p = w.clone().requires_grad_()
            weight, bias = p[: CLASSES * FEATURES].view(CLASSES, FEATURES), p[CLASSES * FEATURES :]
            logits = torch.from_numpy(x) @ weight.T + bias
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
            share = len(y) / sum(SIZES) if by_examples else 1 / 6
            total += share * torch.autograd.grad(loss, p)[0]
        torch.testing.assert_close(after, w - 0.1 * total, rtol=0, atol=1e-15)
        w = after


@both_engines
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_row_switched_off_equals_fedavg_bit_for_bit(engine, dtype):
    def path(algorithm):
        return classifier("", algorithm=algorithm, engine=engine, dtype=dtype).step(3)

    base = path(kinds.FedAvgOptions(cohort=PARTIAL))
    assert torch.equal(base, path(kinds.FedProxOptions(cohort=PARTIAL, mu=0.0)))
    assert torch.equal(base, path(kinds.FedAvgMOptions(cohort=PARTIAL, server_momentum=0.0)))
    assert not torch.equal(base, path(kinds.FedProxOptions(cohort=PARTIAL, mu=1e-3)))
    assert not torch.equal(base, path(kinds.FedAvgMOptions(cohort=PARTIAL, server_momentum=1e-3)))


@both_engines
def test_zero_server_vectors_change_nothing(engine):
    """SCAFFOLD's first round is uniform FedAvg's; FedDyn's nears twice its step as alpha goes to 0 (h = alpha g)."""
    start = classifier("fedavg, uniform", engine=engine).params
    fedavg = classifier("fedavg, uniform", engine=engine).step()[0]
    for option in ("scaffold, option 1", "scaffold, option 2"):
        torch.testing.assert_close(classifier(option, engine=engine).step()[0], fedavg, rtol=1e-14, atol=1e-15)
    feddyn = classifier("", algorithm=kinds.FedDynOptions(alpha=1e-9), engine=engine).step()[0]
    torch.testing.assert_close(feddyn - start, 2 * (fedavg - start), rtol=1e-6, atol=1e-8)


def test_fednova_at_equal_steps_equals_fedavg():
    equal = {"local_epochs": None, "local_steps": 3}
    nova, avg = classifier("fednova", **equal).step(3), classifier("fedavg", **equal).step(3)
    torch.testing.assert_close(nova, avg, rtol=1e-13, atol=1e-15)
    assert not torch.allclose(classifier("fednova").step(3), classifier("fedavg").step(3), rtol=1e-3)


@every_row
def test_relabelling_clients_changes_nothing(name):
    order = (3, 0, 5, 1, 4, 2)
    full = {"batch_size": "full", "local_epochs": 3}  # batches are drawn by a client's index
    base, moved = classifier(name, **full), classifier(name, labels=order, **full)
    torch.testing.assert_close(base.step(4), moved.step(4), rtol=0, atol=1e-12)
    torch.testing.assert_close(base.update.params[list(order)], moved.update.params, rtol=0, atol=1e-12)


@every_row
@both_engines
def test_added_client_changes_no_other_clients_batches(name, engine):
    """The first six clients return the same updates, and the same bits where each trains alone."""
    few, more = classifier(name, engine=engine), classifier(name, labels=tuple(range(9)), engine=engine)
    few.step()
    more.step()
    rtol = 0 if engine == "plain" else 1e-13
    torch.testing.assert_close(more.update.params[:6], few.update.params, rtol=rtol, atol=0.1 * rtol)
    np.testing.assert_array_equal(more.update.local_steps[:6], few.update.local_steps)
    for extra, rows in few.update.extras.items():
        torch.testing.assert_close(more.update.extras[extra][:6], rows, rtol=10 * rtol, atol=rtol)


@every_row
@both_engines
def test_same_seed_gives_same_bits(name, engine):
    base = classifier(name, engine=engine, seed=3, cohort=PARTIAL, dtype="float32").step(3)
    assert torch.isfinite(base).all()
    again = classifier(name, engine=engine, seed=3, cohort=PARTIAL, dtype="float32").step(3)
    assert base.numpy().tobytes() == again.numpy().tobytes()
    other = classifier(name, engine=engine, seed=4, cohort=PARTIAL, dtype="float32").step(3)
    assert base.numpy().tobytes() != other.numpy().tobytes()


@every_row
def test_simulate_plays_the_rounds_of_the_stepper(name):
    """`fs.simulate`, with metrics, criteria and a record, ends at the same bits as single steps."""
    federation = classifier(name, cohort=PARTIAL)
    path = federation.step(3)
    run = fedscape.simulate(federation.session.scenario, data=federation.session.population, record=False)
    assert torch.equal(run.params, path[-1])
    assert run.rounds["round"][-1] == 3


@every_row
def test_engines_agree(name):
    """Ragged clients, partial batches, part of the clients, three rounds: to float64 rounding."""
    work = {"cohort": PARTIAL, "partial_work": 0.5, "l2": 0.01}
    plain, stacked = (classifier(name, engine=engine, **work) for engine in ("plain", "stacked"))
    torch.testing.assert_close(plain.step(3), stacked.step(3), rtol=1e-11, atol=1e-13)
    for vector, value in plain.strategy.state_dict().items():
        torch.testing.assert_close(stacked.strategy.state_dict()[vector], value, rtol=1e-10, atol=1e-12)


@every_row
@pytest.mark.parametrize("partial_work", ["keep", "drop"])
def test_cohort_reduced_tile_by_tile_gives_the_same_round(name, partial_work):
    """Tiles of two clients without memory to keep updates, with stragglers kept or dropped."""
    algorithm = replace(ROWS[name], cohort=5, partial_work=partial_work)
    kept, reduced = (
        classifier("", algorithm=algorithm, partial_work=0.4, local_epochs=3, tile=2, keep_bytes=k)
        for k in (1 << 30, 0)
    )
    for _ in range(4):
        before = kept.params
        torch.testing.assert_close(reduced.step(), kept.step(), rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(reduced.update.clients, kept.update.clients)
        np.testing.assert_allclose(reduced.update.train_loss, kept.update.train_loss, rtol=1e-10)
        norms = (before - kept.update.params).norm(dim=1).numpy()
        np.testing.assert_allclose(reduced.total.dispersion.update_norm, norms, rtol=1e-9)  # in order of client
    assert kept.update.params.shape == (5, kept.params.numel())
    assert reduced.update.params.shape == (5, 0)


@pytest.mark.parametrize("name", ["fedavg", "fedavg, uniform", "fednova"])
@pytest.mark.parametrize("partial_work", ["keep", "drop"])
def test_cohort_reduced_tile_by_tile_has_the_same_measures(name, partial_work):
    """This includes a tile that is dropped whole; measures that need the final mean are listed as not measured."""
    algorithm = replace(ROWS[name], cohort=5, partial_work=partial_work)
    lines = []
    for keep_bytes in (1 << 30, 0):
        made = classifier("", algorithm=algorithm, partial_work=0.6, local_epochs=3, tile=1, keep_bytes=keep_bytes)
        scenario = made.session.scenario
        lines.append(fedscape.simulate(scenario, data=made.session.population, record=False).rounds)
    for quantity in ("train_loss", "aggregate_norm", "update_dispersion", "gradient_diversity", "pseudo_gradient_norm"):
        np.testing.assert_allclose(lines[1][quantity][1:], lines[0][quantity][1:], rtol=1e-9, err_msg=quantity)


@every_row
def test_server_vectors_keep_their_shape(name):
    federation = classifier(name, cohort=PARTIAL)
    federation.step()
    first = {n: v.shape for n, v in federation.strategy.state_dict().items()}
    assert set(first.values()) <= {federation.params.shape}
    federation.step(3)
    assert {n: v.shape for n, v in federation.strategy.state_dict().items()} == first
    assert all(v.dtype == torch.float64 for v in federation.strategy.state_dict().values())
    assert federation.params.shape == federation.session.start.params.shape
    assert set(federation.strategy.algorithm.local.broadcast) <= set(first)


@every_row
@both_engines
def test_federation_of_one_client_trains(name, engine):
    federation = classifier(name, labels=(0,), engine=engine, local_lr=0.03)
    losses = []
    for _ in range(12):
        federation.step()
        losses.append(float(federation.update.train_loss[0]))
    assert losses[-1] < losses[0]


@every_row
def test_cohorts_reach_every_client(name):
    federation = classifier(name, cohort=PARTIAL)
    seen, cohorts = set(), set()
    for _ in range(8):
        federation.step()
        cohort = federation.update.clients
        assert len(cohort) == PARTIAL == len(set(cohort))
        cohorts.add(tuple(cohort.tolist()))
        seen |= set(cohort.tolist())
    assert seen == set(range(6))
    assert len(cohorts) > 1


@pytest.mark.parametrize(("name", "own", "server"), [
    ("scaffold, option 1", "client_variate", "server_variate"),
    ("scaffold, option 2", "client_variate", "server_variate"),
    ("feddyn", "client_gradient", "server_gradient"),
])  # fmt: skip
@pytest.mark.parametrize("partial_work", ["keep", "drop"])
def test_server_vector_is_the_mean_of_client_states(name, own, server, partial_work):
    """The mean is over all clients, with zero for those never sampled; otherwise partial rounds miss the optimum."""
    algorithm = replace(ROWS[name], cohort=PARTIAL, partial_work=partial_work)
    federation = classifier("", algorithm=algorithm, partial_work=0.4, local_epochs=3)
    everyone = np.arange(6)
    for _ in range(6):
        federation.step()
        held = federation.session.states.gather(own, everyone, federation.params.numel(), torch.float64)
        torch.testing.assert_close(federation.strategy.state_dict()[server], held.mean(0), rtol=1e-11, atol=1e-13)
    assert federation.strategy.state_dict()[server].abs().max() > 1e-3


# Coefficients.

AVERAGING = ("fedavg", "fedavg, uniform", "fedavg, unbiased", "fednova", "fednova, mu", "fedprox", "scaffold, option 2")


def shares(sizes, draws=None, steps=None, total=None, population=None, cohort=None):
    n = np.asarray(sizes, np.int64)
    drawn = np.ones(len(n), np.int64) if draws is None else np.asarray(draws, np.int64)
    return ClientFacts(
        num_examples=n,
        draws=drawn,
        local_steps=np.full(len(n), 3, np.int64) if steps is None else np.asarray(steps, np.int64),
        total_examples=int(n.sum()) if total is None else total,
        population=len(n) if population is None else population,
        cohort=int(drawn.sum()) if cohort is None else cohort,
        local_lr=0.1,
    )


def coefficients(name, given):
    return build_algorithm(ROWS[name], LocalOptions(local_lr=0.1)).aggregation.weights(given)


clients = st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 3), st.integers(1, 40)), min_size=1, max_size=8)


@pytest.mark.parametrize("name", AVERAGING)
@given(found=clients)
@settings(max_examples=40)
def test_doubling_every_size_changes_no_coefficient(name, found):
    sizes, draws, steps = (np.array(column) for column in zip(*found, strict=True))
    base = coefficients(name, shares(sizes, draws, steps))
    np.testing.assert_allclose(coefficients(name, shares(2 * sizes, draws, steps)), base, rtol=1e-13)
    assert (base > 0).all()


@pytest.mark.parametrize("name", AVERAGING)
@given(found=clients, order=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_coefficients_follow_their_clients(name, found, order):
    shuffled = found.copy()
    order.shuffle(shuffled)
    where = [shuffled.index(client) for client in found]
    base, moved = (coefficients(name, shares(*zip(*rows, strict=True))) for rows in (found, shuffled))
    np.testing.assert_allclose(moved[where], base, rtol=1e-12)


@pytest.mark.parametrize("name", AVERAGING)
@given(found=clients)
@settings(max_examples=40)
def test_client_drawn_twice_counts_as_two(name, found):
    """A client drawn r times counts as r equal clients."""
    sizes, draws, steps = (np.array(column) for column in zip(*found, strict=True))
    kwargs = {"total": int(sizes.sum()), "population": len(sizes), "cohort": int(draws.sum())}
    together = coefficients(name, shares(sizes, draws, steps, **kwargs))
    apart = coefficients(name, shares(np.repeat(sizes, draws), None, np.repeat(steps, draws), **kwargs))
    np.testing.assert_allclose(np.add.reduceat(apart, np.cumsum(draws) - draws), together, rtol=1e-12)


def test_weightings_are_as_defined():
    given = shares([10, 30, 60], draws=[1, 2, 1], total=1000, population=20)
    np.testing.assert_allclose(coefficients("fedavg", given), [10 / 130, 60 / 130, 60 / 130])
    np.testing.assert_allclose(coefficients("fedavg, uniform", given), [0.25, 0.5, 0.25])
    np.testing.assert_allclose(coefficients("scaffold, option 2", given), [0.25, 0.5, 0.25])
    np.testing.assert_allclose(coefficients("feddyn", given), [0.25, 0.5, 0.25])
    np.testing.assert_allclose(coefficients("fedavg, unbiased", given), [0.05, 0.3, 0.3])  # n_k / n x N / |S|
    nova = coefficients("fednova", shares([10, 30, 60], steps=[1, 2, 4]))
    np.testing.assert_allclose(nova, 3.1 * np.array([0.1, 0.15, 0.15]))  # tau_eff = .1 + .6 + 2.4


def test_unbiased_weights_with_all_clients_are_by_examples():
    given = shares([10, 30, 60])
    np.testing.assert_allclose(coefficients("fedavg, unbiased", given), coefficients("fedavg", given))


@both_engines
def test_draws_with_replacement_are_counted_in_rounds(engine):
    """The round is start - mean over draws of pseudo-gradients, a client drawn twice counting twice."""
    algorithm = kinds.FedAvgOptions(cohort=8, sampling="by_examples", weighting="uniform")
    federation = classifier("", algorithm=algorithm, engine=engine)
    before, repeated = federation.params, False
    for round_index in range(1, 5):
        cohort = federation.strategy.federation.sampler.draw(round_index)
        after = federation.step()[0]
        assert cohort.draws.sum() == 8
        np.testing.assert_array_equal(federation.update.clients, cohort.clients)
        mean = torch.from_numpy(cohort.draws / 8) @ federation.update.params
        torch.testing.assert_close(after, mean, rtol=1e-13, atol=1e-15)
        assert not torch.allclose(after, before)
        before, repeated = after, repeated or cohort.draws.max() > 1
    assert repeated


@every_row
@both_engines
def test_stragglers_are_dropped(name, engine):
    """With partial_work "drop" only clients with full local work count, whatever the others return."""
    if name == "fedsgd":
        pytest.skip("one step a round cannot be done in part")
    work = {"algorithm": replace(ROWS[name], partial_work="drop"), "engine": engine, "local_epochs": 3}
    federation = classifier("", partial_work=0.5, **work)
    start = federation.params
    after = federation.probe(start)
    late = federation.update.local_steps < 3 * -(-np.array(SIZES) // 4)
    assert 0 < late.sum() < 6
    np.testing.assert_array_equal(federation.total.weights == 0, late)

    def rubbish(update):
        moved = torch.from_numpy(np.where(late, 1e3, 0.0))[:, None]
        return replace(update, params=update.params + moved, buffers=update.buffers,
                       extras={n: v - moved for n, v in update.extras.items()})  # fmt: skip

    assert not torch.equal(after, start)
    torch.testing.assert_close(federation.tampered(start, rubbish), after, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "fedsgd"])
def test_first_round_with_only_stragglers_changes_nothing(name):
    algorithm = replace(ROWS[name], partial_work="drop")
    federation = classifier("", algorithm=algorithm, partial_work=1.0, local_epochs=3)
    start = federation.params
    assert torch.equal(federation.step()[0], start)
    kept = classifier("", algorithm=ROWS[name], partial_work=1.0, local_epochs=3)
    assert not torch.equal(kept.step()[0], start)
