"""Which evaluations of nodes are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import Message

from clients.core.arrays import I32, I64
from clients.core.population import Population
from clients.core.shown.text import excerpt
from clients.engines.evaluation import CohortEvaluation
from clients.flower.decoding import Rejection, decode_evaluation, undecodable
from clients.flower.messages import CohortMessages
from clients.training.losses import SCORE_NAMES
from server.nodes.admission import named_clients, other_clients
from server.nodes.bounds import NUMBERS_EACH, ReplyBounds
from server.nodes.plausibility import most_held_out

NOT_EVALUATED = "evaluation_rejected"
"""The kind of event."""
ARRAYS = 1 << 16
"""Bytes of arrays in an evaluation, which needs none."""


def sift(
    sent: CohortMessages,
    replies: Sequence[Message],
    population: Population,
    sizes: I32,
    client_of: Callable[[int], int],
) -> tuple[list[Message], list[Rejection]]:
    """Return the replies to an evaluation that are used, errors among them, and those that are not.

    Each must be of the clients that its node was sent the model for, with possible counts and scores. A loss that is
    not finite is not used, unless no client has a finite one: then the model has diverged.

    Args:
        sent: the messages.
        replies: of real nodes.
        population: the population of the round.
        sizes: training examples of each client (N,), as declared.
        client_of: node id -> client.
    """
    used, rejected, infinite = [], [], []
    answered: set[int] = set()
    is_finite = False
    for reply in replies:
        if reply.has_error():
            used.append(reply)
            continue
        try:
            reason, found = _checked(sent, reply, population, sizes, client_of)
        except Exception as error:  # whatever a reply of another machine raises, only it is left out
            reason, found = undecodable(error), None
        if found is not None and not reason and answered.intersection(found.clients.tolist()):
            reason = "its clients have answered already"
        if reason or found is None:
            rejected.append(Rejection(reply.metadata.src_node_id, reply, reason))
            continue
        answered.update(found.clients.tolist())
        known = found.num_examples > 0
        if np.isfinite(found.loss[known]).all() and np.isfinite(found.score[known]).all():
            is_finite |= bool(known.any())
            used.append(reply)
        else:
            infinite.append(reply)
    if not is_finite:
        return used + infinite, rejected
    reason = "a loss or a score is not finite"
    return used, rejected + [Rejection(reply.metadata.src_node_id, reply, reason) for reply in infinite]


def evaluation_events(sent: CohortMessages, rejected: Sequence[Rejection]) -> list[dict[str, Any]]:
    """Return an event for each evaluation that is not used. It does not count for `nodes.exclude_after`."""
    events = []
    for one in rejected:
        clients = sent.clients_of(one.reply).tolist()
        message = f"the evaluation of node {one.node} for {named_clients(clients)} is not used: {excerpt(one.reason)}"
        events.append({
            "round": sent.work.round_index, "kind": NOT_EVALUATED, "message": message, "clients": clients,
        })  # fmt: skip
    return events


def _checked(
    sent: CohortMessages, reply: Message, population: Population, sizes: I32, client_of: Callable[[int], int]
) -> tuple[str, CohortEvaluation | None]:
    """Return why an evaluation must not be used, as a clause, empty where it may; and the evaluation."""
    meant = sent.clients_of(reply)
    classes = population.outputs if population.task == "classification" else 0
    bounds = ReplyBounds.of(len(meant), ARRAYS, numbers_each=NUMBERS_EACH + 3 * classes)
    if problem := other_clients(reply, meant) or bounds.problem_of(reply.content):
        return problem, None
    name = SCORE_NAMES[population.task]
    found = decode_evaluation([reply], client_of, name)
    is_grouped = any(isinstance(record.get("client"), list) for record in reply.content.metric_records.values())
    if found is not None and classes and is_grouped and found.classes is None:
        return "it has no counts by class for each client", None
    if found is None:
        return f"it has no number of examples, loss and {name} for each client", None
    if not np.array_equal(found.clients, meant):
        named = named_clients(found.clients.tolist())
        return f"it is for {named}, and {named_clients(meant.tolist())} were sent the model", None
    if problem := _impossible(found, population, most_held_out(sizes, meant)):
        return problem, None
    return "", found


def _impossible(found: CohortEvaluation, population: Population, most: I64) -> str:
    """Return why counts or scores are not possible, as a clause; empty where they are."""
    known = found.num_examples > 0
    loss, score = found.loss[known], found.score[known]
    if (found.num_examples < 0).any() or (found.num_examples > most).any():
        k = int(((found.num_examples < 0) | (found.num_examples > most)).argmax())
        return f"client {found.clients[k]} reports {found.num_examples[k]} examples, and at most {most[k]} are expected"
    if population.task != "objective" and ((loss < 0).any() or (score < 0).any()):
        return "a loss or a score is negative"
    if population.task != "classification":
        return ""
    if (score > 1).any():
        return "an accuracy is above 1"
    if found.classes is None:
        return ""
    right, actual, guessed = found.classes.right, found.classes.actual, found.classes.guessed
    if right.shape[1] != population.outputs:
        return f"it counts {right.shape[1]} classes, and the scenario has {population.outputs}"
    is_whole = (actual.sum(1) == found.num_examples) & (guessed.sum(1) == found.num_examples)
    if not is_whole.all() or (right < 0).any() or (right > np.minimum(actual, guessed)).any():
        return "its counts by class do not add up to its examples"
    return ""
