"""Alarms as the alarm client of another vendor's stack sees them: a list that follows, and an operator's acts."""

from datetime import UTC, datetime, timedelta

from plugin import pki
from plugin.domain import LabelKind, Verdict
from tests.integration.alarm_plant import PASSWORD, plant


async def test_its_alarm_list_follows_and_its_operator_acts_also_after_a_restart(second_stack, tmp_path):
    own = pki.ensure_own_certificate(tmp_path / "stranger", "urn:test:second-stack", ["localhost"])
    async with plant(tmp_path, confirm=True) as made:
        await made.rul(5.0)
        stood = made.room.states["engine-01.rul.rul.Alarm"].current.event_id
    async with plant(tmp_path, confirm=True) as made:
        pki.trust(tmp_path / "pki", own.cert_path.read_bytes())
        said = await second_stack(
            made.sink.endpoint,
            "alarms",
            "nsu=urn:foretag:predictions;s=engine-01.rul.rul.Alarm",
            certificate=own.cert_path,
            key=own.key_path,
            user=("otto", PASSWORD),
        )
        now, day = datetime.now(UTC), timedelta(days=1)
        (label,) = await made.store.labels("engine-01", now - day, now + day, kind=LabelKind.VERDICT)
    steps = {line.get("step", "error"): line for line in said}
    assert "error" not in steps, said
    assert (steps["stands"]["event"], steps["stands"]["severity"], steps["stands"]["retain"]) == (stood, 800, True)
    assert steps["stands"]["message"].startswith("rul 5 cycles is under 10 cycles. Mostly by T50")
    good = {step: steps[step]["status"] for step in ("commented", "confirmed", "judged", "shelved", "unshelved")}
    assert set(good.values()) == {"Good"}, good
    assert (steps["known"]["acknowledged"], steps["known"]["confirmed"]) == (True, False)
    assert (steps["known"]["comment"], steps["known"]["user"]) == ("on my way", "otto")
    assert steps["acknowledged twice"]["status"] != "Good"
    assert (steps["done"]["confirmed"], steps["done"]["comment"]) == (True, "washed")
    assert (steps["aside"]["shelved"], steps["back"]["shelved"]) == ("TimedShelved", "Unshelved")
    assert (label.verdict, label.user, label.note) == (Verdict.CONFIRMED, "otto", "a fouled compressor")


async def test_an_observer_hears_of_alarms_and_may_do_nothing_to_them(second_stack, tmp_path):
    own = pki.ensure_own_certificate(tmp_path / "stranger", "urn:test:second-stack", ["localhost"])
    node = "nsu=urn:foretag:predictions;s=engine-01.rul.rul.Alarm"
    async with plant(tmp_path) as made:
        pki.trust(tmp_path / "pki", own.cert_path.read_bytes())
        await made.rul(5.0)
        state = made.room.states["engine-01.rul.rul.Alarm"].current
        event = state.event_id
        acts = (
            ("Acknowledge", event, "on my way"), ("AddComment", event, "so it is"), ("Suppress",),
            ("Verdict", event, "false_alarm", "never mind"),
        )  # fmt: skip
        words = [word for act in acts for word in ("then", "call", node, *act)]
        keys = {"certificate": own.cert_path, "key": own.key_path}
        said = await second_stack(made.sink.endpoint, *words[1:], user=("olga", PASSWORD), **keys)
        assert made.room.states["engine-01.rul.rul.Alarm"].current == state
    assert [line.get("status") for line in said] == ["BadUserAccessDenied"] * len(acts), said
