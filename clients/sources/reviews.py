"""Generated reviews of shops: sentiment that depends on which word is negated, so that counting words is not enough.

A review has an odd number of clauses, such as "the coffee was not good but" or "the service seemed really slow and". A
clause praises or complains: a good word without negation or a bad word with it praises. The review is positive (1) if
most clauses praise, else negative (0). Whether a clause is negated is drawn independently of what it says. Shops differ
in the things they sell, in their favourite words, and in how good they are.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.population import Population
from clients.partition.options import PartitionOptions
from clients.partition.pooled import Pool, pooled_population
from clients.sources.made_options import ReviewsOptions

OPENINGS = ("honestly", "well", "overall")
NOUNS = ("coffee", "cake", "service", "terrace", "screen", "battery", "room", "staff")
VERBS = ("was", "seemed")
NEGATIONS = ("not", "never")
STRESSES = ("really", "quite")
GOOD = ("good", "great", "lovely", "fine")
BAD = ("bad", "poor", "awful", "dull")
JOINTS = ("and", "but", "while")
VOCABULARY = ("", "the", *OPENINGS, *NOUNS, *VERBS, *NEGATIONS, *STRESSES, *GOOD, *BAD, *JOINTS)
"""Every word; a token is its index, and 0 fills a review up to its length."""
_AT = {word: i for i, word in enumerate(VOCABULARY)}
_CLAUSE = 6  # words: the, noun, verb, negation or stress, good or bad, joint


def reviews_population(
    options: ReviewsOptions, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype = torch.float32
) -> Population:
    """Make the population of reviews; each shop is a client unless a partition deals reviews out.

    Args:
        options: the shops and their reviews.
        partition: which client holds which reviews; None takes the shops.
        seed: root seed.
        dtype: not used: features are ids of words.
    """
    shop, tokens, labels = made_reviews(options, seed)
    facts = {"words": len(VOCABULARY), "bag_of_words_accuracy": round(bag_of_words_accuracy(options), 6)}
    keys = {"shop": shop, "label": labels}
    pool = Pool("reviews", "kind", tokens, labels, keys, natural="shop", facts=facts, dtype=torch.int64, outputs=2)
    population = pooled_population(pool, partition, options, seed=seed, dtype=dtype)
    return replace(population, spec=replace(population.spec, tokens=len(VOCABULARY)))


def made_reviews(options: ReviewsOptions, seed: int) -> tuple[I64, I64, I64]:
    """Return the shop [n], the words [n, length] and the label [n] (1 is positive) of all reviews, shop by shop."""
    shops, clauses = np.arange(options.shops), options.clauses
    share = np.exp(options.size_spread * streams.normals(streams.keys(seed, "shop size", shops), 1)[:, 0])
    sizes = np.maximum(1, np.round(options.reviews * options.shops * share / share.sum())).astype(np.int64)
    shop = np.repeat(shops, sizes)
    each = streams.uniforms(streams.keys(seed, "review", np.arange(len(shop))), 8 * clauses + 1)
    draws = each[:, 1:].reshape(len(shop), clauses, 8)
    quality = (
        0.5 + 0.5 * options.shops_differ * (streams.uniforms(streams.keys(seed, "shop", shops), 1)[:, 0] - 0.5) * 2
    )
    praises = draws[:, :, 0] < quality[shop][:, None]
    negated = draws[:, :, 1] < options.negation
    words = np.empty((len(shop), clauses, _CLAUSE), np.int64)
    words[:, :, 0] = _AT["the"]
    words[:, :, 1] = _favourites(NOUNS, options, seed, shop, draws[:, :, 2])
    words[:, :, 2] = _favourites(VERBS, options, seed, shop, draws[:, :, 3])
    negations, stresses = (_favourites(w, options, seed, shop, draws[:, :, 4]) for w in (NEGATIONS, STRESSES))
    words[:, :, 3] = np.where(negated, negations, stresses)
    good, bad = (_favourites(w, options, seed, shop, draws[:, :, 5]) for w in (GOOD, BAD))
    words[:, :, 4] = np.where(praises != negated, good, bad)
    words[:, :, 5] = _favourites(JOINTS, options, seed, shop, draws[:, :, 6])
    labels = (praises.sum(1) > clauses / 2).astype(np.int64)
    return shop, _opened(words.reshape(len(shop), -1), each[:, 0]), labels


def _opened(words: I64, draw: F64) -> I64:
    """Put one of the openings before half of the reviews; fill the others up with 0."""
    out = np.zeros((len(words), words.shape[1] + 1), np.int64)
    opened, which = draw < 0.5, np.floor(2 * len(OPENINGS) * draw).astype(np.int64) % len(OPENINGS)
    out[~opened, :-1], out[opened, 1:] = words[~opened], words[opened]
    out[opened, 0] = _AT[OPENINGS[0]] + which[opened]
    return out


def _favourites(words: tuple[str, ...], options: ReviewsOptions, seed: int, shop: I64, draw: F64) -> I64:
    """Return words of each clause: shops prefer some, the more the larger `shops_differ`."""
    keys = streams.keys(seed, f"favourites {words[0]}", np.arange(options.shops))
    odds = np.exp(3 * options.shops_differ * streams.normals(keys, len(words)))
    upto = np.cumsum(odds / odds.sum(1, keepdims=True), axis=1)
    chosen = (draw[:, :, None] > upto[shop][:, None, :-1]).sum(2)
    return np.asarray(_AT[words[0]] + chosen, np.int64)


def bag_of_words_accuracy(options: ReviewsOptions) -> float:
    """Return the best accuracy of a classifier that only counts words, where shops are alike and praise half the time.

    All it can know is how many clauses are negated and how many have a good word.

    Example:
        >>> bag_of_words_accuracy(ReviewsOptions(clauses=1)), bag_of_words_accuracy(ReviewsOptions(clauses=3))
        (1.0, 0.8125)
    """
    chances: dict[tuple[int, int], F64] = {}
    p = options.negation
    for clauses in product(product((0, 1), repeat=2), repeat=options.clauses):  # (negated, praises) of each
        negations = sum(negated for negated, _ in clauses)
        good = sum(negated != praises for negated, praises in clauses)
        label = int(2 * sum(praises for _, praises in clauses) > len(clauses))
        chance = p**negations * (1 - p) ** (len(clauses) - negations) * 0.5 ** len(clauses)
        chances.setdefault((negations, good), np.zeros(2))[label] += chance
    return float(sum(both.max() for both in chances.values()))
