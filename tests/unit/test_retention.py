"""Classes of retention: who is in which, and what has to go."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plugin.config import load
from plugin.errors import ConfigError
from plugin.historian.keeping.retention import Partition, RetentionConfig, believed, class_of, expired, fits

HOUR = 3_600_000_000
FILE = """
tags = ["tags.csv"]
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:4840/plant"
[[historian.retention]]
name = "slow"
tags = ["TI*"]
samples = "3650d"
[[historian.retention]]
name = "default"
samples = "90d"
size = "50GiB"
"""
CSV = "name,node,retention\nTI1,i=1,\nTI2,i=2,default\nPI1,i=3,\nPI2,i=4,slow\n"


def partition(key: int, start: int, end: int, size: int = 100) -> Partition:
    return Partition(key, start * HOUR, end * HOUR, 1000, size)


def written(folder: Path, toml: str = FILE, csv: str = CSV) -> Path:
    (folder / "tags.csv").write_text(csv)
    (folder / "foretag.toml").write_text(toml)
    return folder / "foretag.toml"


@pytest.mark.parametrize(
    ("pattern", "name", "does"),
    [
        ("TI*", "TI101", True),
        ("TI*", "PTI1", False),
        ("*.T?4", "engine-01.T24", True),
        ("*.T?4", "engine-01.T4", False),
        ("p[3]", "p[3]", True),
        ("p[3]", "p3", False),
        ("a.b", "axb", False),
    ],
)
def test_a_pattern_has_two_wild_cards_and_no_others(pattern, name, does):
    assert fits(pattern, name) is does


def test_a_tag_names_its_class_or_is_taken_by_the_first_that_fits(tmp_path):
    config = load(written(tmp_path))
    assert {tag.name: tag.retention for tag in config.tags} == {"TI1": "slow", "TI2": "", "PI1": "", "PI2": "slow"}
    assert (
        class_of("TI9", "", (RetentionConfig(name="a", tags=("*",)), RetentionConfig(name="b", tags=("TI*",)))) == "a"
    )


def test_without_classes_all_is_in_the_default_one(tmp_path):
    toml = FILE.partition("[[historian")[0]
    config = load(written(tmp_path, toml, CSV.replace(",slow", ",")))
    assert {tag.retention for tag in config.tags} == {""}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "slow"', 'name = "fast"', ["tag PI2: retention", "'slow'", "Name one of ['fast', 'default']"]),
        ('"TI*"', '"FI*"', ["historian.retention[0].tags", "'FI*'", "fits no tag"]),
        ('name = "slow"', 'name = "default"', ["historian.retention", "is there twice"]),
        ('"3650d"', '"3600s"\nminutes = "30s"', ["historian.retention[0].minutes", "'30s'", "less than an hour"]),
        ('"50GiB"', '"50MB"\nhours = "0s"', ["historian.retention[1].hours", "less than an hour"]),
        ('"50GiB"', '"50B"', ["historian.retention[1].size", "less than 16MiB"]),
        ('name = "slow"', 'name = "slow ones"', ["historian.retention[0].name", "'slow ones'"]),
    ],
)
def test_a_wrong_class_is_refused_with_the_remedy(tmp_path, old, new, says):
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, FILE.replace(old, new, 1)))
    for each in says:
        assert each in str(caught.value)


def test_nothing_is_dropped_unless_the_file_says_so():
    config = RetentionConfig(name="default")
    many = [partition(n, n, n + 1) for n in range(1000)]
    assert (config.samples, config.size) == (None, None)
    assert expired(many, None, 0) == []
    with pytest.raises(ValidationError):
        RetentionConfig(name="")


def test_a_partition_goes_when_its_end_is_older_than_the_age():
    partitions = [partition(1, 0, 2), partition(2, 1, 3), partition(3, 3, 4)]
    assert [each.id for each in expired(partitions, 3 * HOUR, 0)] == [1, 2]


def test_over_the_size_the_oldest_go_until_the_rest_fits():
    partitions = [partition(1, 0, 2), partition(2, 1, 3, size=40), partition(3, 3, 4)]
    assert [each.id for each in expired(partitions, None, 100)] == [1]
    assert [each.id for each in expired(partitions, None, 101)] == [1, 2]
    assert expired(partitions, None, 0) == []


@given(
    st.lists(st.tuples(st.integers(-10, 50), st.integers(1, 5), st.integers(1, 100)), max_size=20),
    st.none() | st.integers(-10, 60),
    st.integers(-100, 800),
)
def test_what_stays_is_young_enough_and_small_enough_and_nothing_else_goes(found, bound, surplus):
    partitions = [partition(key, start, start + span, weight) for key, (start, span, weight) in enumerate(found)]
    partitions.sort(key=lambda each: each.end)
    limit = None if bound is None else bound * HOUR
    gone = expired(partitions, limit, surplus)
    stay = partitions[len(gone) :]
    assert gone == partitions[: len(gone)]
    left = surplus - sum(each.bytes for each in gone)
    if stay:
        assert limit is None or stay[0].end > limit
        assert left <= 0
    if gone:
        assert (limit is not None and gone[-1].end <= limit) or left + gone[-1].bytes > 0


def test_a_clock_of_ours_that_is_wrong_drops_nothing():
    plant = 1_000 * HOUR
    assert believed(now=900_000 * HOUR, newest=plant) == plant
    assert believed(now=999 * HOUR, newest=plant) == 999 * HOUR
    assert believed(now=7, newest=None) == 7
