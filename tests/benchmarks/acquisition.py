"""From a plant's socket to columns and to committed rows: CPU per value, beside other clients of the same server.

The server is scripted (:mod:`tests.benchmarks._scripted`), speaks over a real secure channel and is never the
bottleneck; each client is a process of its own that measures itself, and they take turns. Of other stacks take part:
asyncua as it comes; node-opcua, where Node.js and its modules are there; and open62541, where a client made of it is on
the PATH as ``open62541-drain``: it is given ``PORT --kind KIND --tags N --seconds S``, and prints what
:mod:`tests.benchmarks._drain` prints.
"""

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.harness import Better, Goal, Peer, Row, Spread

_NODE = Path(__file__).parent.parent / "acceptance" / "node_opcua"
_LIMIT = 120.0  # [s] for one client
_PEERS = {
    "asyncua": Goal(30, of_ratio=True),
    "asyncua, decoded only": None,
    "node-opcua": Goal(5, of_ratio=True),
    "open62541": Goal(0.4, of_ratio=True),
}
_SHAPES = {
    "mixed": "mixed scalars",
    "uniform": "Doubles",
    "half": "mixed scalars, another half of them each time",
}

Result = Mapping[str, float]
"""``values``, ``cpu`` [s], ``wall`` [s], ``memory`` [MB], and what else a client prints."""
Results = Mapping[tuple[str, str], Sequence[Result]]
"""By what was done and by whom, a result per round."""


@dataclass(frozen=True, slots=True)
class Case:
    """One client's turn."""

    what: str
    who: str
    command: tuple[str, ...]
    port: int
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plants:
    """Ports of the servers, and the certificate of both."""

    eager: int
    """Answers every request at once."""
    steady: int
    """Sends once a second."""
    certificate: Path


async def measure(quick: bool) -> Sequence[Row]:
    """Round by round, all clients in turn."""
    results: dict[tuple[str, str], list[Result]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as folder:
        async with _plants(Path(folder)) as plants:
            for _ in range(1 if quick else 3):
                for case in _cases(plants, quick):
                    results[case.what, case.who].append(await _result(case))
    return [*_costs(results), *_secured(results), *_stored(results), *_steady(results), *_subscribed(results)]


# --- who is measured ---------------------------------------------------------------------------------------------


def _cases(plants: Plants, quick: bool) -> list[Case]:
    brief = ("--seconds", "1" if quick else "2")
    calm = ("--seconds", "4" if quick else "10", "--interval", "1")
    secured = ("--server-certificate", str(plants.certificate))
    found = []

    def case(what: str, who: str, client: str, *arguments: str, tags: int = 10_000, kind: str = "mixed") -> None:
        port = plants.steady if "--interval" in arguments else plants.eager
        shape = ("--kind", kind, "--tags", str(tags))
        found.append(Case(what, who, _CLIENTS[client], port, (*shape, *arguments)))

    for kind in ("mixed", "uniform"):
        case(kind, "foretag", "to_batches", *brief, kind=kind)
        for peer in _PEERS if kind == "mixed" or not quick else ("asyncua",):
            if not _missing(peer):
                case(kind, peer, peer, *brief, kind=kind)
        case(f"{kind} stored", "foretag", "to_rows", *brief, kind=kind)
    case("half", "foretag", "to_batches", *brief, kind="half")
    case("secured", "foretag", "to_batches", *brief, *secured)
    case("secured", "asyncua", "asyncua", *brief, *secured)
    case("subscribed 10,000", "foretag", "to_subscribed")
    case("subscribed 50,000", "foretag", "to_subscribed", tags=50_000)
    case("steady 10,000", "foretag", "to_rows", *calm)
    case("steady 50,000", "foretag", "to_rows", "--no-ring", *calm, tags=50_000)
    if not quick:
        case("service 50,000", "foretag", "service", *calm, tags=50_000)
    return found


def _own(client: str) -> tuple[str, ...]:
    return sys.executable, "-m", "tests.benchmarks._drain", client


_CLIENTS = {
    "to_batches": _own("to_batches"),
    "to_rows": _own("to_rows"),
    "to_subscribed": _own("to_subscribed"),
    "service": _own("service"),
    "asyncua": _own("asyncua"),
    "asyncua, decoded only": _own("asyncua_decoded"),
    "node-opcua": ("node", str(_NODE / "drain.mjs")),
    "open62541": ("open62541-drain",),
}


def _missing(peer: str) -> str:
    """Why a peer can't take part; empty: it can."""
    if peer == "node-opcua" and not shutil.which("node"):
        return "Node.js is not on the PATH"
    if peer == "node-opcua" and not (_NODE / "node_modules").exists():
        return "run npm ci in tests/acceptance/node_opcua"
    if peer == "open62541" and not shutil.which("open62541-drain"):
        return "open62541-drain is not on the PATH"
    return ""


# --- what is reported --------------------------------------------------------------------------------------------


def _spread(results: Sequence[Result], figure: Callable[[Result], float]) -> Spread:
    return Spread.of(map(figure, results))


def _cost(result: Result) -> float:
    """CPU per value [µs]."""
    return 1e6 * result["cpu"] / result["values"]


def _costs(results: Results) -> list[Row]:
    """Socket to columns, and beside it each peer's way to its own objects."""
    rows = []
    for kind, shape in _SHAPES.items():
        ours, figure = _spread(results[kind, "foretag"], _cost), f"socket to columns, {shape}: CPU per value"
        rows.append(Row(figure, ours, "µs", goal=Goal(0.4) if kind != "half" else None))
        for peer, goal in _PEERS.items():
            if theirs := results.get((kind, peer)):
                rows.append(Row(figure, ours, "µs", peer=Peer(peer, _spread(theirs, _cost)), goal=goal))
            elif kind == "mixed":
                rows.append(Row(f"{figure} ({peer} is not here: {_missing(peer)})", ours, "µs", goal=goal))
    return rows


def _secured(results: Results) -> list[Row]:
    ours, theirs = (_spread(results["secured", who], _cost) for who in ("foretag", "asyncua"))
    figure = "socket to columns, mixed scalars, signed and encrypted: CPU per value"
    return [Row(figure, ours, "µs", peer=Peer("asyncua", theirs))]


def _stored(results: Results) -> list[Row]:
    rows = []
    for kind, shape in list(_SHAPES.items())[:2]:
        seen, figure = results[f"{kind} stored", "foretag"], f"socket to committed rows, {shape}"
        per_core = _spread(seen, lambda result: result["values"] / result["cpu"])
        at_once = _spread(seen, lambda result: result["values"] / result["wall"])
        rows.append(Row(f"{figure}: values per second of CPU", per_core, "1/s", Better.MORE, goal=Goal(500_000)))
        rows.append(Row(f"{figure}: values per second", at_once, "1/s", Better.MORE))
    return rows


def _steady(results: Results) -> list[Row]:
    """A plant in its usual state."""

    def share(result: Result) -> float:
        return 100 * result["cpu"] / result["wall"]

    def memory(result: Result) -> float:
        return result["memory"]

    few, many = results["steady 10,000", "foretag"], results["steady 50,000", "foretag"]
    rows = [
        Row("10,000 tags a second to committed rows: CPU", _spread(few, share), "% core", goal=Goal(2)),
        Row("50,000 tags a second to committed rows: CPU", _spread(many, share), "% core"),
        Row("50,000 tags: memory, acquisition and historian", _spread(many, memory), "MB", goal=Goal(250)),
    ]
    if whole := results.get(("service 50,000", "foretag")):
        rows.append(Row("50,000 tags: memory, the whole service without a model", _spread(whole, memory), "MB"))
    return rows


def _subscribed(results: Results) -> list[Row]:
    limits = {"10,000": 1.5, "50,000": 6.0}

    def wall(result: Result) -> float:
        return result["wall"]

    return [
        Row(
            f"connect and subscribe {tags} tags", _spread(results[f"subscribed {tags}", "foretag"], wall), "s",
            goal=Goal(limit),
        )
        for tags, limit in limits.items()
    ]  # fmt: skip


# --- the other processes -----------------------------------------------------------------------------------------


async def _result(case: Case) -> Result:
    process = await asyncio.create_subprocess_exec(
        *case.command, str(case.port), *case.arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_LIMIT):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    for line in output.decode().splitlines():
        if line.startswith("{"):
            found: Result = json.loads(line)
            return found
    raise RuntimeError(f"{case.who} gave no result for {case.what!r}: {errors.decode()[-500:]}")


@contextlib.asynccontextmanager
async def _plants(folder: Path) -> AsyncIterator[Plants]:
    async with _plant(folder, "0") as eager, _plant(folder, "1") as steady:
        yield Plants(eager, steady, folder / "own" / "own.der")


@contextlib.asynccontextmanager
async def _plant(folder: Path, interval: str) -> AsyncIterator[int]:
    arguments = ("-m", "tests.benchmarks._scripted", "--interval", interval, "--pki", str(folder))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_LIMIT):
            ready = await process.stdout.readline()
        if not ready.startswith(b"ready "):
            raise RuntimeError("the scripted plant did not start")
        yield int(ready.split()[1])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
