"""A second OPC UA stack at the simulated plant: any client can use it."""

from datetime import UTC, datetime

from opcua_sim.options import Options
from opcua_sim.server import serve


async def test_a_stranger_browses_the_plant_and_reads_units_ranges_and_times(second_stack):
    async with serve(Options(port=0, engines=2)) as plant:
        found = await second_stack(plant.endpoint, "browse")
        text = str(found)
        assert all(name in text for name in ("Fleet", "engine-01", "T24", "gas-turbine", "NOX_lab")), found[:20]
        speed, nox, cycle = await second_stack(
            plant.endpoint,
            "read",
            *(
                f"nsu=urn:opcua-sim:plant;s={name}"
                for name in ("engine-01.Nf", "gas-turbine.NOX_lab", "engine-01.cycle")
            ),
        )
    assert speed["units"]["text"] == "rpm"
    assert speed["range"]["low"] < speed["value"] < speed["range"]["high"]
    assert speed["status"] == 0
    assert nox["units"]["id"] == 18256  # UNECE code GP
    lateness = datetime.fromisoformat(nox["server_time"]) - datetime.fromisoformat(nox["source_time"])
    assert lateness.total_seconds() == 24
    assert abs((datetime.now(UTC) - datetime.fromisoformat(speed["source_time"])).total_seconds()) < 30
    assert cycle["value"] >= 1
