"""Decoding of the work that a Flower message sends to clients."""

from __future__ import annotations

import math

from flwr.app import RecordDict

from clients.core.arrays import I64
from clients.core.errors import StrategyError
from clients.flower.codec import Codec, decode_vectors
from clients.flower.decoding import LARGEST, model_arrays, number
from clients.flower.messages import BROADCAST, ROUND, RULE, UPLINK
from clients.training.rules import proximal
from clients.training.uplink import IDENTITY
from clients.training.work import CohortWork, LocalWork

PROXIMAL = "proximal-mu"
"""The key under which Flower's FedProx sends mu to its clients."""


def decode_work(content: RecordDict, clients: I64, codec: Codec, own: LocalWork) -> CohortWork:
    """Decode the work in a message, for one client or for all that were sent the same.

    Args:
        content: the content of any strategy's message. Our messages name a local rule and an uplink; others get the
            plain rule, or FedProx where their config has `proximal-mu`.
        clients: the receivers, (K,).
        codec: decodes the model.
        own: the local rule and uplink with which this process was set up.

    Raises:
        StrategyError: the message names a local rule or uplink that differs from `own`, or has no round.
        ValueError: its arrays do not have the model's names and shapes.
    """
    config = {k: v for record in content.config_records.values() for k, v in record.items()}
    params, buffers = codec.decode(model_arrays(content))
    for key, value in ((RULE, own.rule.signature), (UPLINK, own.uplink.name)):
        named = config.get(key)
        if named not in (None, value):
            problem = f"sends the {key.replace('-', ' ')} {named!r}, and the clients were set up for {value!r}"
            raise StrategyError("algorithm", problem, fix="Start server and clients from the same scenario.")
    round_index = config.get(ROUND)
    if not isinstance(round_index, int) or not 1 <= round_index <= LARGEST:
        problem = f"sends messages whose config has no {ROUND!r} from 1 on, which the choice of batches needs"
        fix = "Pass on the config that configure_train receives, as Flower's strategies do."
        raise StrategyError("strategy", problem, fix=fix)
    is_ours = RULE in config
    vectors = (
        decode_vectors(content.array_records[BROADCAST], own.rule.broadcast, codec.dtype, (codec.parameters.size,))
        if (BROADCAST in content)
        else {}
    )
    return CohortWork(
        round_index=round_index,
        clients=clients,
        params=params,
        buffers=buffers,
        rule=own.rule if is_ours else proximal(_mu(config.get(PROXIMAL, 0.0))),
        uplink=own.uplink if is_ours else IDENTITY,
        broadcast=vectors,
    )


def _mu(value: object) -> float:
    """Return FedProx's mu of a message's config.

    Raises:
        StrategyError: it is no finite number of at least 0, of which nan would become the model.
    """
    mu = number(value)
    if isinstance(value, bool) or not (math.isfinite(mu) and mu >= 0):
        problem = f"sends {PROXIMAL!r} = {value!r:.60}, which must be a finite number of at least 0"
        raise StrategyError("strategy", problem, fix="FedProx(proximal_mu=0.1) sends one.")
    return mu
