"""``[[models]]``: what can't be is refused by name, with what to do."""

import pytest
from pydantic import ValidationError

from plugin.infer.config import ModelConfig


def config(**changes: object) -> ModelConfig:
    fields: dict[str, object] = {
        "name": "m", "kind": "k", "assets": ["*"], "features": ["a", "b"], "window": "60s", "step": "10s",
        "training": {"learn": "normal"},
    }  # fmt: skip
    return ModelConfig.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recent": "5s"}, "recent is shorter than step; make it a multiple of step"),
        ({"recent": 0}, "recent is shorter than step"),
        ({"window": "5s"}, "window is shorter than step"),
        ({"valid": 0}, "valid\n"),
        ({"schedule": {"deadline": "0s"}}, "deadline\n"),
        ({"features": ["a"], "roles": {"lab": "a"}}, "features: all come late"),
        ({"window": "99999999999d"}, "is too long a duration"),
        ({"window": float("inf")}, "is too long a duration"),
        ({"window": float("nan")}, "is no duration"),
    ],
)
def test_what_can_not_be_is_refused(changes, told):
    with pytest.raises(ValidationError) as refused:
        config(**changes)
    assert told in str(refused.value)


def test_the_coverage_of_one_cell_is_that_of_the_newest():
    assert config(recent="10s").recent_cells == 1
    assert config(recent="19s").recent_cells == 1
    assert config().recent_cells == 6
