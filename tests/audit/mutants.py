"""Builds broken on purpose: each claims what the sound one does, and delivers less."""

from dataclasses import dataclass, replace

import dp_accounting
import numpy as np
import torch

import dpzo
from dpzo.estimators import two_point
from dpzo.mechanisms import GaussianMechanism, GaussianVectorMechanism, finite
from dpzo.sampling import PoissonSampler

# Mechanisms.


@dataclass(frozen=True)
class TenthLessNoise(GaussianMechanism):
    def release(self, values, noise):
        sound = GaussianMechanism(self.clip_threshold, 0.9 * self.noise_multiplier, self.directions)
        return sound.release(values, noise)


@dataclass(frozen=True)
class ClipDropped(GaussianMechanism):
    def release(self, values, noise):
        return super().release(0 * values, noise) + finite(values).sum(0)


@dataclass(frozen=True)
class ClipAboveOnly(GaussianMechanism):
    def release(self, values, noise):
        return super().release(0 * values, noise) + np.minimum(finite(values), self.clip_threshold).sum(0)


@dataclass(frozen=True)
class EachClippedChargedAsJoint(GaussianMechanism):
    def release(self, values, noise):
        C = self.clip_threshold
        return super().release(0 * values, noise) + np.clip(finite(values), -C, C).sum(0)


@dataclass(frozen=True)
class OneNoiseForAllDirections(GaussianMechanism):
    def release(self, values, noise):
        one = GaussianMechanism(self.clip_threshold, self.noise_multiplier)
        alone = GaussianMechanism(self.clip_threshold, 1e-9, self.directions)
        return alone.release(values, noise) + one.release(np.empty(0), noise)


@dataclass(frozen=True)
class ReplaceOneAsAddRemove(GaussianMechanism):
    """Accounts a change of C where replacing a record changes the sum by 2C."""

    def event(self):
        return dp_accounting.GaussianDpEvent(2 * self.noise_multiplier)


@dataclass(frozen=True)
class HalfOfTheNoiseAlongU(GaussianVectorMechanism):
    def release(self, values, noise, norm):
        return GaussianVectorMechanism(self.clip_threshold, 0.5 * self.noise_multiplier).release(values, noise, norm)


# Randomness.


class EachNoiseTwice:
    """Steps 2k and 2k + 1 have the same noise."""

    secret = True

    def __init__(self, seed):
        self.inner = dpzo.randomness.SeededEntropy(seed)

    def at(self, step):
        return self.inner.at(step // 2)


# Samplers.


@dataclass(frozen=True)
class FullButChargedAsPoisson(PoissonSampler):
    def batches(self, n, steps, private):
        for _ in steps:
            yield np.arange(n)


@dataclass(frozen=True)
class OneBatchForAll(PoissonSampler):
    def batches(self, n, steps, private):
        batch = next(super().batches(n, steps, private))
        for _ in steps:
            yield batch


# Steps of DPZero.


def batch_size_divisor(model, records, us, stage, divisor, mechanism, noise):
    v = two_point(model, records, us[0], stage.zo_eps)
    return move(model, us[0], stage, float(mechanism.release(v, noise)) / max(len(v), 1))


def empty_batch_skipped(model, records, us, stage, divisor, mechanism, noise):
    v = two_point(model, records, us[0], stage.zo_eps)
    return move(model, us[0], stage, float(mechanism.release(v, noise)) / divisor if len(v) else 0.0)


def noise_after_seeding(draws_direction):
    """A step that seeds torch for its direction, and so for its noise too, in the manner of public code bases."""

    def step(model, records, us, stage, divisor, mechanism, noise):
        v = two_point(model, records, us[0], stage.zo_eps)
        with torch.random.fork_rng():
            torch.manual_seed(us[0].seed)
            if draws_direction:
                for tensor in model.params.values():
                    torch.randn(tensor.shape)
            z = float(torch.randn(1))
        C = mechanism.clip_threshold
        s = (np.clip(v, -C, C).sum() + mechanism.noise_multiplier * C * z) / divisor
        return move(model, us[0], stage, float(s))

    return step


def move(model, u, stage, s):
    u.add_(model.params, -stage.step_size * s)
    return (s,)


# Loops.


def one_step_too_many(plan, model, data, streams):
    stage = plan.stages[0]
    return dpzo.run(replace(plan, stages=(replace(stage, steps=stage.steps + 1),)), model, data, streams)


def one_step_twice(plan, model, data, streams):
    for step in dpzo.run(plan, model, data, streams):
        yield step if step.index != 5 else replace(step, index=4)


def empty_steps_left_out(plan, model, data, streams):
    batches = plan.sampler.batches(plan.n, range(plan.steps), streams.private)
    for step, batch in zip(dpzo.run(plan, model, data, streams), batches, strict=True):
        if len(batch):
            yield step
