"""The table of causes."""

from __future__ import annotations

from server.diagnosis import course, federation, fit, gradients, rates
from server.diagnosis.finding import Cause

CAUSES: tuple[Cause, ...] = (
    Cause(
        "rate_too_high",
        "learning rate too high",
        rates.rate_too_high,
        rates.smaller_rate,
        explains=("exploding", "model_too_small", "noise_floor"),
        weight=0.9,
    ),
    Cause(
        "rate_too_low",
        "learning rate too low",
        rates.rate_too_low,
        rates.larger_rate,
        explains=("too_few_rounds", "model_too_small"),
    ),
    Cause(
        "decayed_too_early",
        "schedule decayed too early",
        rates.decayed_too_early,
        rates.no_decay,
        explains=("rate_too_low", "too_few_rounds", "model_too_small"),
    ),
    Cause(
        "clipping_dominates",
        "clipping dominates",
        rates.clipping_dominates,
        rates.no_clipping,
        explains=("rate_too_low", "too_few_rounds", "model_too_small"),
    ),
    Cause("too_many_local_steps", "too many local steps", federation.too_many_local_steps, federation.fewer_steps),
    Cause(
        "heterogeneity",
        "clients with different data",
        federation.heterogeneity,
        federation.correct_drift,
        weight=0.8,
    ),
    Cause("cohort_too_small", "cohort too small", federation.cohort_too_small, federation.larger_cohort),
    Cause(
        "batch_statistics",
        "batch normalisation under label skew",
        federation.batch_statistics,
        federation.group_norm,
        explains=("heterogeneity",),
    ),
    Cause("bad_clients", "bad clients", federation.bad_clients, federation.robust_mean),
    Cause(
        "biased_participation",
        "biased participation",
        federation.biased_participation,
        federation.even_participation,
        explains=("bad_clients", "class_imbalance", "heterogeneity", "overfitting", "model_too_large"),
    ),
    Cause("noise_floor", "gradient noise floor", gradients.noise_floor, gradients.less_noise, weight=0.9),
    Cause(
        "vanishing",
        "vanishing gradients",
        gradients.vanishing,
        gradients.better_signal,
        explains=("rate_too_low", "model_too_small"),
    ),
    Cause("exploding", "exploding gradients", gradients.exploding, gradients.clip, weight=0.7),
    Cause(
        "badly_scaled",
        "badly scaled inputs",
        fit.badly_scaled,
        fit.normalise,
        explains=("rate_too_high", "exploding", "noise_floor", "too_few_rounds", "overfitting", "model_too_large"),
    ),
    Cause("class_imbalance", "class imbalance", fit.class_imbalance, fit.reweigh, weight=0.7),
    Cause("model_too_small", "model too small", fit.model_too_small, fit.larger_model, weight=0.6),
    Cause("model_too_large", "model too large", fit.model_too_large, fit.smaller_model),
    Cause("overfitting", "overfitting", fit.overfitting, fit.regularise, weight=0.9),
    Cause("too_few_rounds", "too few rounds", course.too_few_rounds, course.more_rounds, weight=0.5),
    Cause(
        "concept_drift",
        "concept drift",
        course.concept_drift,
        course.follow_drift,
        explains=("overfitting", "rate_too_low", "too_few_rounds", "model_too_large"),
    ),
    Cause("wrong_loss", "wrong loss for the data", fit.wrong_loss, fit.robust_loss),
)
"""Every cause. A cause that explains others ranks before them where it is found."""
