"""Outages: cut, restart of the server, restart of the plant; and the command line."""

import asyncio
import csv
import json
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from asyncua import Client, ua

from opcua_sim.faults import Kind, Planned
from opcua_sim.options import Options, Security
from opcua_sim.server import serve
from opcua_sim.state import StateError

SMALL = Options(port=0, engines=1, gas_turbine=False, period=0.05, history_runs=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def read(endpoint, name="engine-01.cycle") -> Any:
    """A tag's history as (time, value)."""
    async with Client(endpoint, timeout=10) as client:
        found: Any = await client.get_node(f"ns=2;s={name}").read_raw_history(LONG_AGO)
    return [(value.SourceTimestamp, value.Value.Value) for value in found]


async def until(true):
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def until_step(plant, step):
    await until(lambda: plant.next_step >= step)


def assert_whole(history, period=0.05):
    """Every cycle once, one a period."""
    cycles = [value for _, value in history]
    assert all(later in (earlier + 1, 1) for earlier, later in pairwise(cycles))
    steps = {later - earlier for (earlier, _), (later, _) in pairwise(history)}
    assert steps == {timedelta(seconds=period)}


async def connect_fails(endpoint):
    try:
        async with asyncio.timeout(2), Client(endpoint, timeout=1):
            return False
    except (OSError, TimeoutError, ua.UaError):
        return True


async def test_cut_keeps_sessions_and_history():
    async with serve(SMALL) as plant:
        client = Client(plant.endpoint, timeout=5)
        await client.connect_socket()
        await client.send_hello()
        await client.open_secure_channel()
        await client.create_session()
        await client.activate_session()
        parameters = ua.CreateSubscriptionParameters(RequestedPublishingInterval=100)
        parameters.RequestedLifetimeCount, parameters.RequestedMaxKeepAliveCount = ua.UInt32(1000), ua.UInt32(10)
        created = await client.uaclient.create_subscription(parameters, lambda _: None)
        before = plant.next_step
        cut = asyncio.create_task(plant.cut(0.5))
        await until_step(plant, before + 4)
        assert await connect_fails(plant.endpoint)
        await cut
        await until_step(plant, before + 12)
        assert created.SubscriptionId in plant._server.iserver.subscription_service.subscriptions
        assert_whole(await read(plant.endpoint))
        client.disconnect_socket()


async def test_restart_forgets_sessions_but_not_nodes():
    async with serve(SMALL) as plant:
        async with Client(plant.endpoint, timeout=5) as client:
            started = await client.get_node(
                ua.NodeId(ua.Int32(ua.ObjectIds.Server_ServerStatus_StartTime))
            ).read_value()
            await client.get_node("ns=2;s=engine-01.advisory.rul").write_value(ua.DataValue(ua.Variant(5.0)))
            subscription = await client.create_subscription(100, None)
            assert subscription.subscription_id in plant._server.iserver.subscription_service.subscriptions
            assert plant.inject("restart", seconds=0.3) == 0
            await until(lambda: not plant._server.iserver.subscription_service.subscriptions)
            client.uaclient.disconnect_socket()
        await until(lambda: plant._listener._server is not None)
        async with Client(plant.endpoint, timeout=5) as client:
            again = await client.get_node(ua.NodeId(ua.Int32(ua.ObjectIds.Server_ServerStatus_StartTime))).read_value()
            advice = await client.get_node("ns=2;s=engine-01.advisory.rul").read_data_value(raise_on_bad_status=False)
        assert again > started
        assert advice.StatusCode is not None
        assert advice.StatusCode.value == ua.StatusCodes.BadWaitingForInitialData
        assert_whole(await read(plant.endpoint))


async def test_a_plant_goes_on_after_its_own_restart(tmp_path):
    options = replace(SMALL, state=tmp_path / "state", truth=tmp_path / "truth")
    async with serve(options) as plant:
        plant.inject("dropout", "engine-01.T24", 0.3)
        await until_step(plant, 12)
        first = await read(plant.endpoint)
        dropped = await read(plant.endpoint, "engine-01.T24")
        stopped = plant.next_step
    async with serve(options) as plant:
        assert plant.next_step >= stopped
        await until_step(plant, plant.next_step + 3)
        second = await read(plant.endpoint)
        assert (await read(plant.endpoint, "engine-01.T24"))[: len(dropped)] == dropped
    assert second[: len(first)] == first
    cycles = [value for _, value in second]
    assert all(later in (earlier + 1, 1) for earlier, later in pairwise(cycles))
    waits = [later - earlier for (earlier, _), (later, _) in pairwise(second)]
    assert len([wait for wait in waits if wait != timedelta(seconds=0.05)]) == 1  # the time that it was off
    running = json.loads((tmp_path / "state" / "plant.json").read_text())["running"]
    assert len(running) == 2
    with (tmp_path / "truth" / "rul.csv").open() as file:
        truth = [(datetime.fromisoformat(row["time"]), int(row["cycle"])) for row in csv.DictReader(file)]
    lived = [moment for moment in second if moment[0] >= truth[0][0]]
    assert truth[: len(lived)] == lived
    assert len(lived) > 12


async def test_another_plant_in_the_same_folder_is_refused(tmp_path):
    async with serve(replace(SMALL, state=tmp_path)):
        pass
    with pytest.raises(StateError, match="another plant"):
        async with serve(replace(SMALL, engines=2, state=tmp_path)):
            pass


async def test_planned_faults_begin_in_time():
    planned = (Planned(0.2, Kind.BAD, "engine-01.T24", 0.2), Planned(0.3, Kind.BAD, "nothing", 1))
    async with serve(replace(SMALL, faults=planned)) as plant:
        await until_step(plant, 12)
        tag = next(tag for tag in plant.plant.tags if tag.name == "engine-01.T24")
        series = plant.plant.series(tag, 0, 12)
    assert [step for step, status in zip(series.step, series.status, strict=True) if status] == [4, 5, 6, 7]


async def test_a_late_plant_publishes_all_it_missed():
    async with serve(SMALL) as plant, Client(plant.endpoint, timeout=10) as client:
        found = []

        class Handler:
            def datachange_notification(self, node, value, data) -> None:
                found.append((data.monitored_item.Value.SourceTimestamp, value))

        subscription = await client.create_subscription(50, Handler())
        await subscription.subscribe_data_change(client.get_node("ns=2;s=engine-01.cycle"), queuesize=100)
        await until_step(plant, plant.next_step + 3)
        for _ in range(3_000_000):  # the event loop stands still
            pass
        step = plant.next_step
        await until_step(plant, step + 10)
        await asyncio.sleep(0.2)
        await subscription.delete()
        assert len(found) > 8
        assert_whole(found)


async def test_close_in_the_middle_of_a_cut():
    async with asyncio.timeout(10), serve(SMALL) as plant:
        plant.inject("cut", seconds=60)
        await asyncio.sleep(0.4)


# --- security ----------------------------------------------------------------------------------------------------


async def test_only_trusted_clients_on_secure_channels(tmp_path):
    async with serve(replace(SMALL, state=tmp_path / "plant", security=Security.SIGN_ENCRYPT)) as plant:
        with pytest.raises(ua.UaStatusCodeError) as refused:
            await Client(plant.endpoint, timeout=5).connect()
        assert refused.value.code == ua.StatusCodes.BadSecurityPolicyRejected
        client = Client(plant.endpoint, timeout=5)
        client.application_uri = "urn:test:client"
        key, certificate = tmp_path / "key.pem", tmp_path / "cert.der"
        await client.setup_self_signed_certificate(key, certificate)
        pki = tmp_path / "plant" / "pki"
        await client.set_security_string(f"Basic256Sha256,SignAndEncrypt,{certificate},{key},{pki / 'own.der'}")
        with pytest.raises(ua.UaError):
            await client.connect()
        (rejected,) = (pki / "rejected").iterdir()
        rejected.rename(pki / "trusted" / rejected.name)
        async with client:
            assert await client.get_node("ns=2;s=engine-01.T24").read_value() > 600
        assert (pki / "own.key").stat().st_mode & 0o077 == 0


# --- command line ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def command(*arguments: str):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "opcua_sim", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_command_line(tmp_path):
    script = tmp_path / "storm.toml"
    script.write_text("[[fault]]\nat = 0\nkind = 'bad'\ntags = '*.T24'\nseconds = 0.2\n")
    arguments = ["--port", "0", "--engines", "1", "--no-gas-turbine", "--period", "0.1", "--history-runs", "0"]
    async with command(*arguments, "--state", str(tmp_path / "s"), "--faults", str(script)) as plant:
        assert plant.stdout
        async with asyncio.timeout(30):
            line = (await plant.stdout.readline()).decode().split()
        assert line[:2] == ["opcua_sim", "ready"]
        async with command("fault", "stuck", "engine-01.T30", "--seconds", "5", "--endpoint", line[2]) as fault:
            out, _ = await asyncio.wait_for(fault.communicate(), 30)
        assert out.decode() == "stuck for 5 s on 1 tags\n"
        async with command("fault", "bad", "nothing", "--endpoint", line[2]) as fault:
            _, err = await asyncio.wait_for(fault.communicate(), 30)
            assert fault.returncode == 1
        assert b"Traceback" not in err
        plant.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(plant.communicate(), 10)
        assert plant.returncode == 0
    with (tmp_path / "s" / "faults.csv").open() as file:
        assert [row["kind"] for row in csv.DictReader(file)] == ["bad", "stuck"]
    lines = err.decode().splitlines()
    assert len(lines) == 5  # start, two faults, one refused, stop
    assert "26 tags of 1 machines" in lines[0]


async def test_command_line_says_what_is_wrong(tmp_path):
    (tmp_path / "plant.json").write_text("{}")
    async with command("--state", str(tmp_path), "--port", "0") as plant:
        _, err = await asyncio.wait_for(plant.communicate(), 30)
        assert plant.returncode == 1
    assert err.decode().startswith("opcua_sim: ")
    assert "move it away" in err.decode()
