"""A descent that is cut off and goes on, and what is kept that can't be used."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.keeping import Keeper, KeptProgress, Shelf, part
from models.training import Budget, descend

BUDGET = Budget(steps=60, rate=0.1, decay=0.01)


class Stopped(Exception):
    pass


class Drawer:
    """A shelf in memory."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.full = False

    def write(self, name: str, content: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.held[name] = content

    def keeper(self, warned: list[str], made_of: str = "same", every: float = 1e9) -> Keeper:
        return Keeper(Shelf(self.held.get, self.write), made_of, every, warned.append)


def noisy(weights, key, shared, own):
    return jnp.square(weights["w"] - shared - own + 0.1 * jax.random.normal(key)).sum()


def descended(progress: Callable[[float, str], None], size: int = 2) -> np.ndarray:
    own = np.arange(size, dtype=np.float32)
    found = descend(noisy, {"w": np.zeros(size, np.float32)}, np.float32(1), own, BUDGET, jax.random.key(3), progress)
    return np.asarray(found["w"])


def stopping(after: float) -> Callable[[float, str], None]:
    def progress(share: float, message: str) -> None:
        if share > after:
            raise Stopped

    return progress


def cut_off(drawer: Drawer, after: float = 0.5) -> None:
    with pytest.raises(Stopped):
        descended(KeptProgress(stopping(after), drawer.keeper([])))


def test_what_was_best_is_kept_with_it():
    drawer, patient = Drawer(), replace(BUDGET, steps=400, patience=100)

    def patiently(progress: Callable[[float, str], None]) -> bytes:
        own = np.zeros(1, np.float32)
        first = {"w": np.full(1, 4.0, np.float32)}
        found = descend(noisy, first, np.float32(1), own, patient, jax.random.key(3), progress, own + 1)
        return np.asarray(found["w"]).tobytes()

    with pytest.raises(Stopped):
        patiently(KeptProgress(stopping(0.3), drawer.keeper([])))
    keeper = drawer.keeper([])
    assert patiently(KeptProgress(lambda share, message: None, keeper)) == patiently(lambda share, message: None)
    assert keeper.resumed > 100


@pytest.mark.parametrize("after", [0.01, 0.5, 0.9])
def test_what_is_cut_off_and_goes_on_ends_as_if_it_had_not_been(after):
    drawer = Drawer()
    told: list[str] = []
    warned: list[str] = []
    cut_off(drawer, after)
    keeper = drawer.keeper(warned)
    found = descended(KeptProgress(lambda share, message: told.append(message), keeper))
    assert found.tobytes() == descended(lambda share, message: None).tobytes()
    assert 0 < keeper.resumed < 60
    assert f"resumed at step {keeper.resumed} of 60" in told
    assert sum("loss" in message for message in told) == (60 - keeper.resumed) // 4, "no step twice"
    assert not warned


def test_each_descent_of_a_fit_is_taken_up_by_itself():
    drawer = Drawer()
    keeper = drawer.keeper([])
    first = descended(KeptProgress(lambda share, message: None, keeper))
    with pytest.raises(Stopped):
        descended(part(KeptProgress(stopping(0.7), keeper), 1, 2), size=3)
    again = drawer.keeper([])
    told: list[str] = []
    assert descended(KeptProgress(lambda share, message: told.append(message), again)).tobytes() == first.tobytes()
    assert told[-1] == "resumed at step 60 of 60"
    assert descended(KeptProgress(lambda share, message: None, again), size=3) == pytest.approx([1, 2, 3], abs=0.4)
    assert again.resumed > 60


def test_it_is_kept_when_it_is_time_to_and_not_before():
    drawer, now = Drawer(), [0.0]
    seen = []

    def progress(share: float, message: str) -> None:
        now[0] += 1.0
        seen.append(bool(drawer.held))

    keeper = Keeper(Shelf(drawer.held.get, drawer.write), "same", 5.0, pytest.fail, clock=lambda: now[0])
    descended(KeptProgress(progress, keeper))
    assert not any(seen[:5])
    assert seen[-1]


DAMAGE: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("damaged", lambda content: content[:-3]),
    ("damaged", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    ("damaged", lambda content: content.replace(b'"done": ', b'"done": 1', 1)),
    ("damaged", lambda content: b"nonsense"),
    ("damaged", lambda content: b""),
    ("damaged", lambda content: b"[]\n"),
]


@pytest.mark.parametrize(("word", "damage"), DAMAGE)
def test_what_is_damaged_is_not_used_and_it_is_said(word, damage):
    drawer = Drawer()
    warned: list[str] = []
    cut_off(drawer)
    (name,) = drawer.held
    drawer.held[name] = damage(drawer.held[name])
    keeper = drawer.keeper(warned)
    found = descended(KeptProgress(lambda share, message: None, keeper))
    assert found.tobytes() == descended(lambda share, message: None).tobytes()
    assert keeper.resumed == 0
    assert word in warned[0]
    assert "begins anew" in warned[0]


def test_what_was_made_of_something_else_is_not_used():
    drawer = Drawer()
    warned: list[str] = []
    cut_off(drawer)
    keeper = drawer.keeper(warned, made_of="other")
    descended(KeptProgress(lambda share, message: None, keeper))
    assert keeper.resumed == 0
    assert "was something else" in warned[0]


def test_a_network_of_another_shape_is_not_used():
    drawer = Drawer()
    warned: list[str] = []
    cut_off(drawer)
    assert len(descended(KeptProgress(lambda share, message: None, drawer.keeper(warned)), size=3)) == 3
    assert "another shape" in warned[0]


def test_a_full_disk_ends_no_training():
    drawer = Drawer()
    warned: list[str] = []
    drawer.full = True
    assert len(descended(KeptProgress(lambda share, message: None, drawer.keeper(warned, every=0.0)))) == 2
    assert "No space left" in warned[0]


def test_what_diverged_keeps_only_numbers():
    drawer = Drawer()

    def loss(weights, key, shared, own):
        return noisy(weights, key, shared, own) / jnp.maximum(0.0, weights["w"][0] - 0.5)

    with pytest.raises(ValueError, match="diverged"):
        descend(
            loss, {"w": np.zeros((1, 2), np.float32)}, np.float32(1), np.zeros(1, np.float32), BUDGET,
            jax.random.key(3), KeptProgress(lambda share, message: None, drawer.keeper([])),
        )  # fmt: skip
    assert not drawer.held
