"""Each remedy of imbalance has its effect on batches, on losses and their gradients, and on rare classes."""

import numpy as np
import pytest
import torch
from scipy import special
from torch.nn import functional

from clients.core.errors import UserError
from clients.core.examples import CohortData
from clients.engines.batch import Batch, output_error
from clients.engines.evaluation import Evaluator
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import MlpOptions, SoftmaxOptions
from clients.sources.custom import custom_population
from clients.training.augment import augment
from clients.training.class_balance import federation_counts, plan_balanced, weights_of
from clients.training.class_metrics import class_counts, recalls
from clients.training.local import count_steps, plan_batches
from clients.training.losses import example_losses, focal, trained_losses
from clients.training.options import AugmentOptions, LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork

BALANCED = LocalOptions(sampling="class_balanced", batch_size=10, local_steps=40)


def cohort_data(labels_of, features=None):
    """Return the data of clients with given labels, one list a client; rows are shuffled in memory."""
    labels = np.concatenate([np.asarray(own, np.int64) for own in labels_of])
    order = np.random.default_rng(0).permutation(len(labels))
    offsets = np.concatenate(([0], np.cumsum([len(own) for own in labels_of])))
    place = torch.empty(len(labels), dtype=torch.int64)
    place[torch.from_numpy(order)] = torch.from_numpy(labels)
    return CohortData(torch.zeros(len(labels), 1), place, order, offsets)


def drawn(local, data, clients, **address):
    steps = count_steps(local, data.sizes, clients, seed=1, round_index=1)
    return plan_balanced(local, data, steps, clients, **({"seed": 1, "round_index": 1} | address))


# class-balanced sampling


def test_balanced_batches_draw_every_class_a_client_has_equally_often():
    data = cohort_data([[0] * 90 + [1] * 9 + [4], [2] * 30 + [0] * 3, [1] * 7])
    plan = drawn(LocalOptions(sampling="class_balanced", batch_size=20, local_steps=600), data, np.arange(3))
    for k, held in enumerate([(0, 1, 4), (0, 2), (1,)]):
        own = set(data.rows[data.offsets[k] : data.offsets[k + 1]].tolist())
        rows = np.concatenate([r[:c] for r, c in zip(plan.rows[k], plan.counts[k], strict=True)])
        assert set(rows.tolist()) <= own
        shares = np.bincount(data.targets.numpy()[rows], minlength=5) / len(rows)
        expected = np.isin(np.arange(5), held) / len(held)
        np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(len(rows)))
        each = np.bincount(rows, minlength=len(data.targets))[list(own)]
        assert each.min() > 0, "within a class every example is drawn"


def test_balanced_batches_keep_steps_and_sizes_of_batches():
    data = cohort_data([[0] * 25 + [1], [1] * 4, [], [0] * 10])
    for options in ({"local_epochs": 2}, {"local_steps": 5}, {"local_epochs": 1, "drop_last": True}):
        local = LocalOptions(batch_size=8, **options)
        clients = np.arange(4)
        steps = count_steps(local, data.sizes, clients, seed=1, round_index=1)
        shuffled = plan_batches(local, data.rows, data.offsets, steps, clients, seed=1, round_index=1)
        plan = drawn(local, data, clients)
        np.testing.assert_array_equal(plan.counts, shuffled.counts)
        assert plan.rows.shape == shuffled.rows.shape


def test_balanced_draws_depend_only_on_client_round_and_seed():
    data = cohort_data([[0] * 25 + [1], [1] * 4 + [2] * 30, []])
    together = drawn(BALANCED, data, np.array([7, 3, 9]))
    start, end = data.offsets[1:3]
    alone = CohortData(data.features, data.targets, data.rows[start:end], np.array([0, end - start]))
    one = drawn(BALANCED, alone, np.array([3]))
    np.testing.assert_array_equal(together.rows[1, :, : one.rows.shape[2]], one.rows[0])
    assert (drawn(BALANCED, data, np.array([7, 3, 9]), round_index=2).rows[:2] != together.rows[:2]).any()
    assert (drawn(BALANCED, data, np.array([7, 3, 9]), seed=2).rows[:2] != together.rows[:2]).any()
    nobody = drawn(BALANCED, cohort_data([[], []]), np.arange(2))
    assert not nobody.counts.any()


# class weights


def test_class_weights_follow_cui_with_mean_one_over_the_counted_examples():
    counts = np.array([[500, 50, 5, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    for kind, beta in (("inverse", 0.0), ("effective", 0.0), ("effective", 0.9), ("effective", 0.999999)):
        found = weights_of(counts, LocalOptions(class_weights=kind, effective_beta=beta))
        np.testing.assert_allclose((found * counts).sum(1)[:2], counts.sum(1)[:2])
        np.testing.assert_allclose(found[1:], 1.0)
        if kind == "inverse":
            np.testing.assert_allclose(found[0, :3] * counts[0, :3], 555 / 3)
        else:
            effective = (1 - beta ** counts[0, :3]) / (1 - beta)
            np.testing.assert_allclose(found[0, :3] * effective, (found[0] * effective[0])[0])
    near = weights_of(counts[0], LocalOptions(class_weights="effective", effective_beta=1 - 1e-9))
    np.testing.assert_allclose(near, weights_of(counts[0], LocalOptions(class_weights="inverse")), rtol=1e-4)


def skewed(sizes=(40, 20, 0, 30), seed=0, classes=3, dtype=torch.float64):
    """Return clients of which class 0 is common and the others rare."""

    def client(k):
        random = np.random.default_rng((seed, k))
        labels = random.choice(classes, size=sizes[k], p=np.array([8.0, *[1.0] * (classes - 1)]) / (7 + classes))
        return random.normal(size=(sizes[k], 5)) + labels[:, None], labels

    return custom_population(client, list(sizes), outputs=classes, feature_shape=(5,), dtype=dtype)


def test_federation_weights_add_up_client_counts():
    population = skewed()
    local = LocalOptions(class_weights="inverse", weights_from="federation")
    labels = population.cohort(np.arange(4)).targets.numpy()
    np.testing.assert_array_equal(federation_counts(local, population, seed=0), np.bincount(labels, minlength=3))
    assert federation_counts(LocalOptions(class_weights="inverse"), population, seed=0) is None
    assert federation_counts(LocalOptions(weights_from="federation"), population, seed=0) is None


def task_of(population, model=None, **local):
    options = LocalOptions(**({"batch_size": 4, "local_epochs": 1} | local))
    return make_task(build_model(model or MlpOptions(hidden=(4,)), population, 3), population, options, seed=2,
                     dtype=torch.float64)  # fmt: skip


def work_of(task, clients=(0, 1, 2, 3)):
    params, buffers = task.initial()
    return CohortWork(round_index=3, clients=np.array(clients), params=params, buffers=buffers)


def whole_loss(task, k, weights, gamma=0.0):
    """Return mean w_y l over a client's data as a graph, and its module."""
    own = task.population.cohort(np.array([k])).client(0)
    log_p = functional.log_softmax(task.module(own.features), 1)
    chosen = log_p[torch.arange(len(own)), own.targets]
    return (torch.from_numpy(weights)[own.targets] * -((1 - chosen.exp()) ** gamma) * chosen).mean()


@pytest.mark.parametrize("counted", ["client", "federation"])
def test_full_gradients_equal_those_of_the_weighted_focal_loss(counted):
    population = skewed()
    task = task_of(population, class_weights="inverse", weights_from=counted, focal_gamma=2.0,
                   augment=AugmentOptions(jitter=1.0, mixup=1.0))  # fmt: skip
    counts = population.clients.label_counts(np.arange(4))
    found = StackedEngine(task).gradients(work_of(task))
    torch.testing.assert_close(found, PlainEngine(task).gradients(work_of(task)), rtol=1e-10, atol=1e-12)
    for k in (0, 1, 3):
        held = counts[k] if counted == "client" else counts.sum(0)
        task.module.zero_grad()
        whole_loss(task, k, held.sum() / np.maximum((held > 0).sum() * held, 1.0), gamma=2.0).backward()
        expected = torch.cat([p.grad.flatten() for p in task.module.parameters()])
        torch.testing.assert_close(found[k], expected, rtol=1e-9, atol=1e-12)


def test_full_gradients_equal_the_mean_over_balanced_batches():
    population = skewed((30, 12))
    task = task_of(population, sampling="class_balanced", optimizer="sgd", local_lr=1e-9, local_epochs=None,
                   local_steps=4000, batch_size=5)  # fmt: skip
    work = work_of(task, (0, 1))
    update, _ = StackedEngine(task).train(work, {})
    mean = (work.params - update.params) / 1e-9 / 4000
    exact = StackedEngine(task).gradients(work)
    torch.testing.assert_close(exact, PlainEngine(task).gradients(work), rtol=1e-10, atol=1e-12)
    shuffled = StackedEngine(task_of(population)).gradients(work)
    for k in range(2):
        assert (mean[k] - exact[k]).norm() < 0.05 * (shuffled[k] - exact[k]).norm()


def test_step_is_not_divided_by_the_weights_of_its_batch():
    """One step on a client's single rare example moves w_y times as far as without weights."""
    population = custom_population(lambda k: (np.ones((4, 2)), np.array([0, 0, 0, 1])), [4], outputs=2,
                                   dtype=torch.float64)  # fmt: skip
    plain = {"batch_size": 1, "local_epochs": None, "local_steps": 1, "local_lr": 0.1}
    for seed in range(20):
        moved = {}
        for kind in ("none", "inverse"):
            module = build_model(SoftmaxOptions(), population, 0)
            task = make_task(module, population, LocalOptions(**plain, class_weights=kind), seed=seed,
                             dtype=torch.float64)  # fmt: skip
            update, _ = StackedEngine(task).train(work_of(task, (0,)), {})
            moved[kind] = update.params[0]
        rare = moved["none"][0] < 0  # the logit of class 0 falls
        torch.testing.assert_close(moved["inverse"], moved["none"] * (2.0 if rare else 2 / 3))


# focal loss


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_written_out_gradient_equals_autograds(gamma, mixed):
    random = torch.Generator().manual_seed(0)
    outputs = (4 * torch.randn(2, 6, 5, generator=random, dtype=torch.float64)).requires_grad_()
    with torch.no_grad():
        outputs[0, 0] = torch.tensor([800.0, 0, 0, 0, 0])  # p is 1 to rounding, for its own class or another
        outputs[0, 1] = torch.tensor([800.0, 0, 0, 0, 0])
    targets = torch.randint(5, (2, 6), generator=random)
    targets[0, :2] = torch.tensor([0, 3])
    weights = torch.rand(2, 6, generator=random, dtype=torch.float64)
    remedy = {"scales": torch.rand(2, 6, generator=random, dtype=torch.float64)}
    if mixed:
        remedy |= {"others": torch.randint(5, (2, 6), generator=random), "other_scales": 1 - remedy["scales"]}
    losses, d = output_error(outputs.detach(), Batch(outputs, targets, weights, {}, remedy), "classification", gamma)
    expected = trained_losses(outputs, targets, "classification", gamma, remedy)
    (expected * weights).sum().backward()
    assert torch.isfinite(d).all()
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(d, outputs.grad, rtol=1e-9, atol=1e-14)


def test_focal_loss_follows_lin():
    p = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    torch.testing.assert_close(focal(p.log(), 2.0), -((1 - p) ** 2) * p.log())
    torch.testing.assert_close(focal(p.log(), 0.0), -p.log())
    ratio = focal(p.log(), 2.0)[:3] / -p.log()[:3]
    assert ratio[0] > ratio[1] > ratio[2] > 0, "easy examples count for less"


def test_recorded_loss_is_the_trained_one():
    population = skewed((12,))
    task = task_of(population, class_weights="inverse", focal_gamma=2.0, batch_size="full", local_lr=1e-12)
    counts = population.clients.label_counts(np.array([0]))[0]
    weights = counts.sum() / np.maximum((counts > 0).sum() * counts, 1.0)
    expected = float(whole_loss(task, 0, weights, 2.0).detach())
    assert expected != pytest.approx(float(whole_loss(task, 0, np.ones(3)).detach()), rel=0.1)
    for engine in (StackedEngine(task), PlainEngine(task)):
        update, _ = engine.train(work_of(task, (0,)), {})
        assert update.train_loss[0] == pytest.approx(expected)


# augmentation


def changed(options, features, counts=None, clients=None, step=0, **address):
    k, b = features.shape[:2]
    counts = np.full(k, b) if counts is None else counts
    clients = np.arange(k) if clients is None else clients
    return augment(options, features, counts, clients, **({"seed": 1, "round_index": 1, "step": step} | address))


def test_jitter_and_scaling_have_the_configured_deviations():
    x = torch.full((40, 25, 8, 3), 2.0, dtype=torch.float64)
    noise = changed(AugmentOptions(jitter=0.3), x)[0] - x
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(noise.mean())) < 0.005
    factor = changed(AugmentOptions(scaling=0.2), x)[0] / x
    assert (factor == factor[:, :, :1]).all(), "one factor a channel of a window"
    assert float(factor.std()) == pytest.approx(0.2, rel=0.05)
    image = torch.full((40, 25, 2, 4, 3), 2.0, dtype=torch.float64)
    factor = changed(AugmentOptions(scaling=0.2), image)[0] / image
    assert (factor == factor[:, :, :1, :1, :1]).all(), "one factor an image"
    assert factor.std() > 0.1


def test_time_shift_moves_windows_and_repeats_the_edge():
    time = torch.arange(9.0, dtype=torch.float64)
    x = torch.stack((time, 10 * time), 1).expand(30, 20, 9, 2)
    found, _ = changed(AugmentOptions(time_shift=3), x)
    shift = time[4] - found[:, :, 4, 0]
    assert sorted(shift.unique().tolist()) == [-3, -2, -1, 0, 1, 2, 3]
    np.testing.assert_allclose(np.bincount((shift.ravel() + 3).long()) / 600, 1 / 7, atol=0.05)
    torch.testing.assert_close(found[..., 0], (time - shift[..., None]).clamp(0, 8))
    torch.testing.assert_close(found[..., 1], 10 * found[..., 0])


def test_mixup_mixes_within_the_batch_by_a_beta_share():
    x = torch.arange(2000.0, dtype=torch.float64).view(400, 5, 1)
    found, mixed = changed(AugmentOptions(mixup=0.4), x, counts=np.tile([5, 3], 200))
    assert (mixed.partner[1::2, 3:] == torch.tensor([3, 4])).all(), "padding is mixed with itself"
    assert (mixed.partner[1::2, :3].sort(1).values == torch.arange(3)).all()
    assert (mixed.partner[::2].sort(1).values == torch.arange(5)).all(), "a permutation of the batch"
    partner = x[torch.arange(400)[:, None], mixed.partner]
    torch.testing.assert_close(found, mixed.share[:, :, None] * x + (1 - mixed.share[:, :, None]) * partner)
    share = np.sort(mixed.share[:, 0].numpy())
    off = np.abs(special.betainc(0.4, 0.4, share) - (np.arange(400) + 0.5) / 400).max()
    assert off < 1.63 / np.sqrt(400), "Kolmogorov-Smirnov against Beta(0.4, 0.4)"


@pytest.mark.parametrize("options", [{"jitter": 0.1}, {"scaling": 0.1}, {"time_shift": 2}, {"mixup": 0.5}], ids=str)
def test_augmentation_is_addressed(options):
    x = torch.randn(3, 6, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options, clients = AugmentOptions(**options), np.array([5, 2, 8])
    together, _ = changed(options, x, np.array([6, 4, 6]), clients)
    alone, _ = changed(options, x[1:2, :4], np.array([4]), clients[1:2])
    assert torch.equal(together[1, :4], alone[0])
    for other in ({"step": 1}, {"seed": 2}, {"round_index": 2}):
        assert not torch.equal(changed(options, x, np.array([6, 4, 6]), clients, **other)[0], together)


def test_mixup_loss_is_the_cross_entropy_with_mixed_targets():
    """Zhang et al. 2018: s l(y) + (1 - s) l(y') of the mixed example is its cross-entropy with s e_y + (1 - s) e_y'."""
    population = skewed((6,))
    task = task_of(population, batch_size="full", local_lr=1e-12, augment=AugmentOptions(mixup=1.0))
    update, _ = PlainEngine(task).train(work_of(task, (0,)), {})
    own = population.cohort(np.array([0])).client(0)
    features, mixed = augment(task.local.augment, own.features[None], np.array([6]), np.array([0]), seed=2,
                              round_index=3, step=0)  # fmt: skip
    soft = functional.one_hot(own.targets, 3).double()
    soft = mixed.share * soft + (1 - mixed.share) * soft[mixed.partner[0]]
    expected = functional.cross_entropy(task.module(features[0]), soft)
    assert update.train_loss[0] == pytest.approx(float(expected.detach()))


def test_mixup_of_a_regression_mixes_targets():
    """Mixup keeps a linear law exact: the loss of the true parameters is 0 on every mixed batch."""
    truth = np.array([[1.0], [-2.0]])

    def client(k):
        x = np.random.default_rng(k).normal(size=(8, 2))
        return x, x @ truth

    population = custom_population(client, [8], outputs=1, task="regression", dtype=torch.float64)
    module = torch.nn.Sequential(torch.nn.Linear(2, 1))
    module[0].weight.data, module[0].bias.data = torch.from_numpy(truth.T.copy()), torch.zeros(1)
    local = LocalOptions(batch_size=3, augment=AugmentOptions(mixup=1.0))
    task = make_task(module, population, local, seed=0, dtype=torch.float64)
    for engine in (StackedEngine(task), PlainEngine(task)):
        update, _ = engine.train(work_of(task, (0,)), {})
        assert update.train_loss[0] < 1e-25


# the effect on rare classes


def rare_recall(**local):
    """Train softmax on 95 : 5 overlapping classes; return recall of the common and the rare class, and accuracy."""
    random = np.random.default_rng(0)

    def draw(n, share):
        labels = (random.random(n) < share).astype(np.int64)
        return random.normal(size=(n, 2)) + 1.2 * labels[:, None], labels

    clients = [draw(400, 0.05) for _ in range(5)]
    population = custom_population(clients.__getitem__, [400] * 5, outputs=2, test=draw(20_000, 0.05))
    options = LocalOptions(local_lr=0.3, batch_size=20, local_epochs=3, **local)
    task = make_task(build_model(SoftmaxOptions(), population, 0), population, options, seed=0)
    params, buffers = task.initial()
    engine = StackedEngine(task)
    for round_index in range(1, 6):
        work = CohortWork(round_index=round_index, clients=np.arange(5), params=params, buffers=buffers)
        params = engine.train(work, {})[0].params.mean(0)
    evaluator = Evaluator(task)
    evaluator.load(params, buffers)
    found = evaluator.central(population.test)
    common, rare = recalls(class_counts(found.predicted, population.test.targets, 2))
    return common, rare, found.score


def test_remedies_raise_the_rare_class_at_the_cost_of_the_common_one():
    common, rare, accuracy = rare_recall()
    assert rare < 0.35
    for remedy in (
        {"sampling": "class_balanced"},
        {"class_weights": "inverse"},
        {"class_weights": "effective", "weights_from": "federation", "effective_beta": 0.9999},
    ):
        found = rare_recall(**remedy)
        assert found[1] > rare + 0.4, remedy
        assert found[0] < common - 0.05, remedy
        assert found[2] < accuracy, remedy
    focused = rare_recall(focal_gamma=2.0)
    assert rare < focused[1], "focal loss is less sure of the common class"


# mistakes


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"sampling": "class_balanced"}, "local.sampling"),
        ({"class_weights": "inverse"}, "local.class_weights"),
        ({"focal_gamma": 2.0}, "local.focal_gamma"),
    ],
)
@pytest.mark.parametrize("kind", ["regression", "objective"])
def test_class_remedies_need_labels(options, field, kind, population_of):
    population = population_of([4], (3,), 2, kind)
    module = torch.nn.Linear(3, 2) if kind == "regression" else Sum()
    with pytest.raises(UserError, match=f"needs class labels, and this is {kind}") as error:
        make_task(module, population, LocalOptions(**options), seed=0)
    assert error.value.field == field
    make_task(module, population, LocalOptions(**options), seed=0, trained_elsewhere=True)


class Sum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.w * x.sum(1)


@pytest.mark.parametrize(
    ("shape", "kind", "options", "field"),
    [
        ((6,), "classification", {"time_shift": 1}, "time_shift"),
        ((1, 6, 6), "classification", {"time_shift": 1}, "time_shift"),
        ((6, 2), "classification", {"time_shift": 6}, "time_shift"),
        ((6, 2), "regression", {"time_shift": 1}, "time_shift"),
        ((6,), "objective", {"jitter": 0.1}, "jitter"),
        ((6,), "objective", {"mixup": 0.1}, "mixup"),
    ],
)
def test_impossible_augmentation_is_refused(shape, kind, options, field, population_of):
    population = population_of([4], shape, 2, kind)
    module = Sum() if kind == "objective" else torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))
    if kind != "objective":
        module(torch.zeros(1, *shape))
    with pytest.raises(UserError) as error:
        make_task(module, population, LocalOptions(augment=AugmentOptions(**options)), seed=0)
    assert error.value.field == f"local.augment.{field}"


@pytest.mark.parametrize(
    ("options", "field"),
    [({"effective_beta": 1.0}, "effective_beta"), ({"focal_gamma": -1.0}, "focal_gamma")],
)
def test_options_out_of_range_are_named(options, field):
    with pytest.raises(UserError) as error:
        LocalOptions(**options)
    assert error.value.field == field
    with pytest.raises(UserError, match=r"augment\.jitter"):
        AugmentOptions(jitter=-0.1)


def test_loss_without_remedies_is_cross_entropy_bit_for_bit():
    outputs = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(200) % 5
    assert torch.equal(
        trained_losses(outputs, targets, "classification"), example_losses(outputs, targets, "classification")
    )
