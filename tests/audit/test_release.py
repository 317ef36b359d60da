"""The attack on single releases: it finds nothing against ours, comes near the claim, and sees every broken build."""

import pytest

from dpzo import Refusal, Relation
from dpzo.audit import audit_release
from dpzo.mechanisms import (
    EachGaussianMechanism,
    GaussianMechanism,
    GaussianVectorMechanism,
    LaplaceMechanism,
    PlainSum,
)
from dpzo.randomness import SeededEntropy
from tests.audit import mutants

C, SIGMA = 0.5, 1 / 3  # mu = 3 under add/remove, where the attack is at its best
ADD, REPLACE, ZERO = Relation.ADD_REMOVE, Relation.REPLACE_ONE, Relation.ZERO_OUT


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("mechanism", "relation", "power"),
    [
        (GaussianMechanism(C, SIGMA), ADD, 0.9),
        (GaussianMechanism(C, 2 * SIGMA), REPLACE, 0.9),
        (GaussianMechanism(C, SIGMA, directions=4), ZERO, 0.9),
        (EachGaussianMechanism(C, 2 * SIGMA, directions=4), ADD, 0.9),
        (LaplaceMechanism(C, SIGMA), ADD, 0.8),
    ],
    ids=str,
)
def test_ours_delivers_what_it_claims_and_the_attack_has_power(mechanism, relation, power):
    finding = audit_release(mechanism, relation)
    assert finding.claimed == pytest.approx(3)
    assert finding.passed
    assert finding.found >= power * finding.claimed


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("mutant", "relation", "releases"),
    [
        (mutants.TenthLessNoise(C, SIGMA), ADD, 20_000),
        (mutants.TenthLessNoise(C, 2 * SIGMA, 4), REPLACE, 20_000),
        (mutants.ClipDropped(C, SIGMA), ADD, 4000),
        (mutants.ClipDropped(C, 2 * SIGMA, 4), REPLACE, 4000),
        (mutants.ClipAboveOnly(C, SIGMA), ADD, 20_000),
        (mutants.EachClippedChargedAsJoint(C, SIGMA, 4), ADD, 4000),
        (mutants.ReplaceOneAsAddRemove(C, 2 * SIGMA), REPLACE, 4000),
    ],
    ids=lambda m: f"{type(m).__name__}-{m.directions}" if hasattr(m, "directions") else str(m),
)
def test_every_broken_mechanism_is_caught(mutant, relation, releases):
    finding = audit_release(mutant, relation, releases)
    assert not finding.passed, finding


@pytest.mark.statistical
def test_it_finds_nothing_where_there_is_nothing():
    """A mechanism that drops all records: both worlds are equal."""

    class Deaf(GaussianMechanism):
        def release(self, values, noise):
            return super().release(0 * values, noise)

    for seed in range(20):
        assert audit_release(Deaf(C, SIGMA), ADD, 300, noise=SeededEntropy(seed)).found == 0


def test_refusals():
    with pytest.raises(Refusal, match="to audit; got NonPrivateDpEvent"):
        audit_release(PlainSum(), ADD)
    with pytest.raises(Refusal, match="audit_plan"):
        audit_release(GaussianVectorMechanism(C, SIGMA), ADD)


def test_the_claim_is_the_accountants_own():
    for relation in Relation:
        change = relation.sensitivity
        assert audit_release(GaussianMechanism(C, 2.0, 9), relation, 2).claimed == change / 2
        assert audit_release(EachGaussianMechanism(C, 2.0, 9), relation, 2).claimed == pytest.approx(3 * change / 2)
        assert audit_release(LaplaceMechanism(C, 2.0), relation, 2).claimed == change / 2
