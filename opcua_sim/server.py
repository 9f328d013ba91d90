"""A running plant: put together, served over OPC UA, broken on demand.

    async with serve(Options(engines=1, gas_turbine=False, port=0)) as plant:
        ...  # connect to plant.endpoint

Order of start: state, plant, nodes, what was known last, socket; of stop: socket, sessions, state.
"""

import asyncio
import gc
import logging
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from copy import copy
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from asyncua import Server, ua

from opcua_sim import address_space, fleet, methods, security
from opcua_sim.faults import MAGNITUDES, OUTAGES, Fault, FaultError, FaultLog, Kind, Planned, parse_kind
from opcua_sim.gas_turbine import GasTurbine
from opcua_sim.history import History
from opcua_sim.options import Options, Security
from opcua_sim.plant import Plant
from opcua_sim.publishing import Publisher, wall_clock
from opcua_sim.state import State
from opcua_sim.transport import Everyone, Listener, Sessions
from opcua_sim.truth import Truth

APPLICATION_URI = "urn:opcua-sim"
_PATH = "plant"
_GRACE = 0.2  # [s] until an outage, so that whoever asked for it gets an answer
_LONGEST_STOP = 1.5  # [s] then clients that do not read are cut off

_log = logging.getLogger("opcua_sim")


class RunningPlant:
    """A plant that is served. Made by :func:`serve`."""

    def __init__(
        self,
        server: Server,
        listener: Listener,
        nodes: address_space.Nodes,
        publisher: Publisher,
        plant: Plant,
        period: float,
    ) -> None:
        self.plant = plant
        self._server = server
        self._listener = listener
        self._nodes = nodes
        self._publisher = publisher
        self._period = period
        self._tasks: asyncio.TaskGroup | None = None
        self._outage = asyncio.Lock()
        self._work: list[asyncio.Task[None]] = []

    @property
    def endpoint(self) -> str:
        """URL that clients connect to."""
        return str(self._server.endpoint.geturl())

    @property
    def next_step(self) -> int:
        """The first step that is not published yet."""
        return self._publisher.next_step

    def inject(self, kind: Kind | str, tags: str = "*", seconds: float = 60.0, magnitude: float | None = None) -> int:
        """Begin a fault with the next instant; the number of tags that it concerns (0 for an outage).

        ``tags``: a name or a pattern; ``magnitude``: share of each tag's range. FaultError: it hits nothing.
        """
        kind = parse_kind(kind)
        if not (math.isfinite(seconds) and seconds > 0):
            raise FaultError(f"a fault lasts longer than 0 s, not {seconds} s")
        if magnitude is not None and not math.isfinite(magnitude):
            raise FaultError("the magnitude is no finite number")
        if kind in OUTAGES:
            if self._tasks is None:
                raise FaultError("the plant does not run yet")
            self._work.append(self._tasks.create_task(self._break(kind, seconds)))
            return 0
        start = self._publisher.next_step
        end = start + max(1, round(seconds / self._period))
        fault = Fault(kind, tags, start, end, MAGNITUDES.get(kind, 0.0) if magnitude is None else magnitude)
        count = self.plant.matching(fault)
        if count == 0:
            raise FaultError(f"no tag matches {tags!r}")
        self.plant.faults.add(fault)
        _log.info("fault: %s on %s (%d tags) for %g s", kind, tags, count, seconds)
        return count

    def clear(self) -> None:
        """End all faults with the next instant."""
        self.plant.faults.clear(self._publisher.next_step)
        _log.info("faults cleared")

    async def cut(self, seconds: float) -> None:
        """Reset all connections and refuse new ones for some time; sessions and subscriptions live on."""
        async with self._outage:
            _log.info("cut for %g s", seconds)
            await self._listener.close()
            await asyncio.sleep(seconds)
            await self._listener.open()

    async def restart(self, seconds: float) -> None:
        """As if the server's process ended and began again after some time: no sessions, same nodes, no advice."""
        async with self._outage:
            _log.info("server down for %g s", seconds)
            await self._listener.close()
            await self._drop_sessions()
            await asyncio.sleep(seconds)
            address_space.clear(self._server, self._nodes.advisory)
            await self._show_start()
            await self._listener.open()
            _log.info("server up again")

    async def _break(self, kind: Kind, seconds: float) -> None:
        await asyncio.sleep(_GRACE)
        await (self.restart(seconds) if kind is Kind.RESTART else self.cut(seconds))

    async def _show_start(self) -> None:
        """Write the time of start into the ServerStatus."""
        started: Any = datetime.now(UTC)
        status = copy(await self._server.iserver.server_status_node.read_value())
        status.StartTime = started
        await self._server.iserver.server_status_node.write_value(status)
        await self._server.get_node(ua.ObjectIds.Server_ServerStatus_StartTime).write_value(started)

    async def _drop_sessions(self) -> None:
        sessions = self._server.iserver
        if isinstance(sessions, Sessions):
            await sessions.drop_sessions()

    def start(self, tasks: asyncio.TaskGroup, planned: tuple[Planned, ...]) -> None:
        """Begin to publish."""
        self._tasks = tasks
        self._work += [tasks.create_task(self._run(planned)), tasks.create_task(self._keep_time())]

    async def _run(self, planned: tuple[Planned, ...]) -> None:
        """Publish for ever, and begin planned faults when their time comes."""
        begin = self._publisher.clock.present
        waiting = [(begin + round(fault.at / self._period), fault) for fault in planned]
        while True:
            due = await self._publisher.wait()
            while self._publisher.next_step < due:
                while waiting and waiting[0][0] <= self._publisher.next_step:
                    self._begin(waiting.pop(0)[1])
                await self._publisher.publish()

    def _begin(self, fault: Planned) -> None:
        try:
            self.inject(fault.kind, fault.tags, fault.seconds, fault.magnitude)
        except FaultError as error:
            _log.warning("planned fault left out: %s", error)

    async def _keep_time(self) -> None:
        """Renew the server's CurrentTime each second."""
        internal = self._server.iserver
        while True:
            status = copy(await internal.server_status_node.read_value())
            status.CurrentTime = now = datetime.now(UTC)
            await internal.server_status_node.write_value(status)
            await internal.current_time_node.write_value(now)
            await asyncio.sleep(1.0)

    async def close(self) -> None:
        """Stop publishing and serving."""
        for task in self._work:
            task.cancel()
        await asyncio.wait(self._work)
        try:
            async with asyncio.timeout(_LONGEST_STOP):
                await self._drop_sessions()
                await self._server.stop()
        except TimeoutError:
            await self._listener.close()


@asynccontextmanager
async def serve(options: Options) -> AsyncIterator[RunningPlant]:
    """Run a plant for the time of a ``with`` block.

    StateError, ValueError, OSError: it can't start, and nothing is left behind. Should it fail later, the block is
    cancelled and an ExceptionGroup says why.
    """
    failure: Exception | None = None
    with ExitStack() as open_files:
        state = open_files.enter_context(State(options.identity(), options.state))
        faults = FaultLog(options.seed, options.state / "faults.csv" if options.state else None)
        engines = fleet.engines(options.engines, options.seed, options.dataset, options.history_runs)
        plant = Plant(engines, GasTurbine(options.gas_turbine_start) if options.gas_turbine else None, faults)
        truth = open_files.enter_context(Truth(plant, options.truth)) if options.truth else None
        running = await _build(options, plant, state, truth)
        async with asyncio.TaskGroup() as tasks:
            running.start(tasks, options.faults)
            try:
                yield running
            except Exception as error:  # noqa: BLE001 of the block: raised again below, as it was, in no group
                failure = error
            finally:
                await running.close()
    if failure is not None:
        raise failure


async def _build(options: Options, plant: Plant, state: State, truth: Truth | None) -> RunningPlant:
    """Build the server, let the plant's clock run, and open the socket."""
    server = Server(Sessions(user_manager=Everyone()))
    server.iserver.disabled_clock = True  # RunningPlant._keep_time ends at once; asyncua's own takes a second
    server.iserver.allow_remote_admin = False
    server.name, server.manufacturer_name, server.product_uri = "opcua_sim", "opcua_sim", APPLICATION_URI
    server.application_type = ua.ApplicationType.Server
    with _no_garbage_collection():
        await server.init()
        await server.set_application_uri(APPLICATION_URI)
        namespace = await server.register_namespace(address_space.NAMESPACE)
        nodes = address_space.build(server, namespace, plant, options.period)
    server.set_identity_tokens([ua.AnonymousIdentityToken])
    await address_space.describe_history(server)
    await _secure(server, options)
    state.begin(wall_clock())
    history = History(plant, nodes.tags, server.iserver.aspace.__contains__, state.clock)
    server.iserver.history_manager = history  # type: ignore[assignment]  # stands in for all that asyncua asks of it
    publisher = Publisher(plant, nodes.tags, server.iserver.aspace, state, history, truth)
    await publisher.show_last()
    running = RunningPlant(server, await _listen(server, options), nodes, publisher, plant, options.period)
    await methods.add_methods(server, namespace, nodes.faults, running)
    return running


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Half a million objects that all live on: looking through them again and again takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


async def _secure(server: Server, options: Options) -> None:
    if options.security is Security.NONE:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        if not _is_loopback(options.host):
            _log.warning("no security on %s: everybody who reaches this port can read and inject faults", options.host)
        return
    assert options.state is not None  # noqa: S101 Options makes sure
    pki = options.state / "pki"
    await security.load_own_certificate(server, pki, APPLICATION_URI, options.host)
    server.set_certificate_validator(security.trust_only(options.trusted or pki / "trusted", pki / "rejected"))
    server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _listen(server: Server, options: Options) -> Listener:
    """Open the socket first: only then the port, and with it the endpoint's URL, is known."""
    listener = Listener(server.iserver, options.host, options.port, server.limits)
    await listener.open()
    server.bserver = listener
    host = f"[{options.host}]" if ":" in options.host else options.host
    server.set_endpoint(f"opc.tcp://{host}:{listener.port}/{_PATH}")
    await server._setup_server_nodes()  # what Server.start() does around its own socket
    listener.set_policies(server._policies)
    await server.iserver.start()
    return listener
