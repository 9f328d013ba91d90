"""What a version that a training begins from has seen, and what is left to learn from."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.adapting import Start
from models.kind import Spec
from plugin.domain import ModelState, ModelVersion, to_micros
from plugin.infer.ancestors import Ancestor, seen_until
from plugin.infer.config import ModelConfig
from plugin.infer.cutting import Stretch

UNTIL = datetime(2026, 3, 1, tzinfo=UTC)


def ancestor() -> Ancestor:
    version = ModelVersion("m", 1, "rul_lstm", ModelState.CHAMPION, UNTIL, {}, {}, {}, "m", "0")
    return Ancestor(version, Start(Spec("rul_lstm", ("a",), 4), {}, head_only=False), {"a": UNTIL})


def stretch(begin: int, end: int) -> Stretch:
    """[h] from when the version was made."""
    first, last = (to_micros(UNTIL + timedelta(hours=hour)) for hour in (begin, end))
    nothing = np.zeros((1, 1), np.float32)
    return Stretch((first, 1), last, nothing, nothing > 0, nothing[0])


@pytest.mark.parametrize(
    ("learn", "left"),
    [("failures", [(-2, 3), (0, 4), (1, 5)]), ("laboratory", [(0, 4), (1, 5)])],
)
def test_a_run_that_ended_since_is_new_as_a_whole_and_a_block_only_if_it_began_since(learn, left):
    config = ModelConfig.model_validate(
        {
            "name": "m", "kind": "k", "assets": ["*"], "features": ["a", "b"], "window": "10s", "step": "1s",
            "roles": {"age": "a", "lab": "b"}, "training": {"learn": learn},
        }
    )  # fmt: skip
    found = [stretch(*hours) for hours in ((-9, -2), (-5, 0), (-2, 3), (0, 4), (1, 5))]
    kept = ancestor().unseen(config, "a", found)
    assert [stretch(*hours).group for hours in left] == [each.group for each in kept]
    assert ancestor().unseen(config, "another", found) == found


def test_what_was_seen_is_what_its_ancestors_saw_too():
    """Else an evaluation of the time in between would be told to be of what nobody had seen."""
    version = replace(ancestor().version, provenance={"data_end": UNTIL.isoformat(), "assets": ["b"]})
    assert seen_until(version) == UNTIL
    told = {**version.provenance, "seen_before": {"a": (UNTIL + timedelta(days=1)).isoformat()}}
    assert seen_until(replace(version, provenance=told)) == UNTIL + timedelta(days=1)
    assert seen_until(replace(version, provenance={})) is None
