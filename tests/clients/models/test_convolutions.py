import numpy as np
import pytest
import torch
from torch import nn

from clients.city.activity import activity_source
from clients.city.window_options import ActivityOptions
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.convolutions import cnn1d_layers
from clients.models.options import Cnn1dOptions
from clients.sources.custom import custom_population
from clients.training import rules
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork
from clients.world.options import WorldOptions
from clients.world.world import make_world


def test_model_is_two_strided_convolutions_and_a_mean():
    torch.manual_seed(0)
    net = cnn1d_layers((40, 3), 5, Cnn1dOptions(channels=(4, 6), kernel=7))
    x = torch.randn(2, 40, 3)
    first, second, linear = (m for m in net if isinstance(m, nn.Conv1d | nn.Linear))
    hidden = torch.zeros(2, 4, 17)
    for t in range(17):
        hidden[:, :, t] = torch.einsum("nkc,ock->no", x[:, 2 * t : 2 * t + 7], first.weight) + first.bias
    last = nn.functional.conv1d(hidden.relu(), second.weight, second.bias, stride=2).relu()
    torch.testing.assert_close(net(x), linear(last.mean(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", [PlainEngine, StackedEngine])
def test_model_learns_windows_in_both_engines(engine):
    source = activity_source(ActivityOptions(clients=6, windows=60), make_world(WorldOptions(), 0), 0)
    scale = np.array([c.deviation for c in source.channels], np.float32)
    everyone = np.arange(6)

    def client(k):
        features, targets = source.make(np.array([k]), "train")
        return features / scale, targets

    population = custom_population(client, source.sizes, outputs=6)
    model = build_model(Cnn1dOptions(channels=(8, 12)), population, 0)
    local = LocalOptions(optimizer="adam", local_lr=0.005, batch_size=16, local_epochs=4)
    task = make_task(model, population, local, seed=0)
    params, buffers = task.initial()
    for r in range(1, 7):
        work = CohortWork(round_index=r, clients=everyone, params=params, buffers=buffers, rule=rules.PLAIN)
        update, _ = engine(task).train(work, {})
        params = update.params.mean(0)
    held, labels = source.make(everyone, "test")
    mean = task.parameters.views(params)
    guess = torch.func.functional_call(model, mean, (torch.from_numpy(held / scale),)).argmax(1).numpy()
    assert (guess == labels).mean() > 0.5  # chance is 0.19
