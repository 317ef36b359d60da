"""A damaged ledger is refused; a torn last line is what a crash leaves, and costs a step."""

import json
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpzo import Ledger, Refusal, Relation, Streams, run
from dpzo.account import sealed
from dpzo.ledger import read
from tests.ledgers import DATA, PLAN, Counted, T, contents, goes_on, put, refused, streams

ANOTHER = replace(PLAN, relation=Relation.ZERO_OUT)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ledger"


def damaged(path, content):
    put(path, content)
    with pytest.raises(Refusal, match="seal"):
        read(path)
    refused(path, "seal")


def test_a_flipped_bit_anywhere(path):
    """Every byte but the last newline, whose loss makes a torn line."""
    whole = contents()["finished"]
    path.write_bytes(whole)
    with open(path, "r+b", buffering=0) as file:

        def flip(position, byte):
            file.seek(position)
            file.write(bytes([byte]))

        for position, byte in enumerate(whole[:-1]):
            flip(position, byte ^ 1 << position % 8)
            with pytest.raises(Refusal, match="seal"):
                read(path)
            flip(position, byte)
    assert path.read_bytes() == whole


@given(st.data())
def test_a_changed_byte_anywhere(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "changed.ledger"
    whole = contents()[data.draw(st.sampled_from(["release", "charge", "checkpoint", "finished"]))]
    position = data.draw(st.integers(0, len(whole) - 2))
    byte = data.draw(st.sampled_from([b"\n", b" ", b"\0"]) | st.binary(min_size=1, max_size=1))
    if whole[position : position + 1] != byte:
        damaged(path, whole[:position] + byte + whole[position + 1 :])


def test_lines_taken_out_of_the_middle_doubled_or_exchanged(path):
    lines = contents()["finished"].splitlines(keepends=True)
    for first in range(len(lines) - 1):
        for last in range(first + 1, len(lines)):
            damaged(path, b"".join(lines[:first] + lines[last:]))
        damaged(path, b"".join(lines[: first + 1] + lines[first:]))
    for one, two in combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[one], swapped[two] = lines[two], lines[one]
        damaged(path, b"".join(swapped))


def test_lines_of_another_ledger(path, tmp_path):
    put(tmp_path / "other", contents()["header"])  # of the same run, key and all
    with Ledger(tmp_path / "other") as ledger:
        list(run(PLAN, Counted(), DATA, Streams.not_private(1, 3), ledger=ledger))
    ours, theirs = contents()["finished"].splitlines(True), (tmp_path / "other").read_bytes().splitlines(True)
    same = sum(a == b for a, b in zip(ours, theirs, strict=False))
    assert same == 2, "the header and the first charge; then the noise differs"
    for at in range(same + 1, len(theirs)):
        damaged(path, b"".join(ours[:at] + theirs[at:]))


def test_a_ledger_of_a_later_version(path):
    text = json.dumps({"ledger": 99, "what": "unknown"}).encode()
    path.write_bytes(sealed(b"", text) + b" " + text + b"\n")
    refused(path, "schema")
    with pytest.raises(Refusal, match="schema"):
        read(path)


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b"\0" * 9, b"a\nb\n", b"\n", b"0" * 33])
def test_a_file_that_is_no_ledger_is_left_alone(path, content):
    put(path, content)
    refused(path, "no file|seal")
    with pytest.raises(Refusal):
        read(path)


# A torn last line


@pytest.mark.parametrize("end", ["charge", "release", "checkpoint"])
def test_a_line_torn_anywhere_counts_as_one_more_step_and_is_mended(path, end):
    """Kills: a torn charge that is free; an error for ever after; a count that grows at each opening."""
    *before, last = contents()[end].splitlines(keepends=True)
    put(path, b"".join(before))
    whole = read(path)
    for kept in range(1, len(last)):
        put(path, b"".join(before) + last[:kept])
        counted = read(path)
        assert counted.charged == whole.charged + 1
        assert counted.steps == whole.steps
        for _ in range(2):
            with Ledger(path) as ledger:
                assert ledger.begin(PLAN, Counted().params, streams(), DATA) == whole.steps
                assert ledger.charged == counted.charged
            assert read(path) == counted._replace(seal=read(path).seal)
            assert path.read_bytes().startswith(b"".join(before))
            assert path.read_bytes().endswith(b'{"charge": %d}\n' % (counted.charged - 1))
    steps = goes_on(path)
    assert [step.index for step in steps] == [s.index for s in whole.steps] + list(range(counted.charged, T))
    assert read(path).charged == T


@given(st.sampled_from(["charge", "release", "checkpoint"]), st.binary(min_size=1).filter(lambda b: b"\n" not in b))
@example("release", b"\0" * 4096)
def test_any_bytes_after_the_last_line_are_a_torn_one(tmp_path_factory, end, torn):
    path = tmp_path_factory.getbasetemp() / "torn.ledger"
    put(path, contents()[end])
    charged = read(path).charged + 1
    put(path, contents()[end] + torn)
    assert read(path).charged == charged
    with Ledger(path) as ledger:
        ledger.begin(PLAN, Counted().params, streams(), DATA)
        assert ledger.charged == charged
    assert path.read_bytes() == contents()[end] + path.read_bytes().splitlines(True)[-1]
    assert read(path).charged == charged


def test_a_torn_line_after_the_last_step_costs_nothing_more(path):
    *before, last = contents()["finished"].splitlines(keepends=True)
    put(path, b"".join(before) + last[:-1])
    assert read(path).charged == T
    assert [step.index for step in goes_on(path)] == list(range(T - 1))
    assert read(path).charged == T
    assert read(path).epsilon(1e-5) == float("inf"), "seeded noise"


def test_a_torn_line_of_a_refused_run_stays_as_it_is(path):
    put(path, contents()["release"] + b"torn")
    refused(path, "the plan of the run", ANOTHER)


def test_a_torn_first_line_is_a_new_run(path):
    header = contents()["header"]
    for kept in [*range(40), *range(40, len(header), 9), len(header) - 1]:
        put(path, header[:kept])
        with pytest.raises(Refusal, match="had not begun"):
            read(path)
        with Ledger(path) as ledger:
            assert ledger.begin(ANOTHER, Counted().params, streams(), DATA) == []
        assert read(path).plan == ANOTHER
        assert read(path).charged == 0
