"""The Prometheus endpoint over a real socket: what it tells, whom it refuses, and that nothing is left of it."""

import asyncio
import logging
import socket
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from plugin.diagnostics import Diagnostics
from plugin.exposition import DiagnosticsConfig, serving

ANY = DiagnosticsConfig(listen="127.0.0.1:0")


def get(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_it_tells_what_the_registry_holds_and_ends_without_a_trace():
    diagnostics = Diagnostics()
    diagnostics.gaps.labels("plant", "sequence").inc(3)
    async with serving(ANY, diagnostics) as url:
        code, text = await asyncio.to_thread(get, url)
        assert code == 200
        found = {s.name: s for family in text_string_to_metric_families(text) for s in family.samples}
        assert found["foretag_gaps_total"].value == 3
        assert found["foretag_gaps_total"].labels == {"source": "plant", "cause": "sequence"}
        assert {"process_resident_memory_bytes", "python_gc_collections_total"} <= set(found)
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(get, url)


async def test_other_pages_and_names_that_only_resolve_to_us_are_refused():
    async with serving(ANY, Diagnostics()) as url:
        port = url.split(":")[2].removesuffix("/metrics")
        assert (await asyncio.to_thread(get, url.replace("metrics", "etc/passwd")))[0] == 404
        assert (await asyncio.to_thread(lambda: get(url, Host=f"evil.example:{port}")))[0] == 403
        assert (await asyncio.to_thread(lambda: get(url, Host=f"localhost:{port}")))[0] == 200
        assert (await asyncio.to_thread(lambda: get(url, Host="[::1")))[0] == 403


async def test_a_port_that_is_taken_is_a_warning_and_the_service_goes_on(caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with serving(DiagnosticsConfig(listen=address), Diagnostics()) as url:
            assert url == ""
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert address in line
    assert "[diagnostics] listen" in line


async def test_who_holds_connections_open_or_talks_nonsense_disturbs_nobody(capfd):
    async with serving(ANY, Diagnostics()) as url:
        port = int(url.split(":")[2].removesuffix("/metrics"))
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
        idle[0].sendall(b"\x00\xff" * 40_000 + b"\r\n\r\n")
        for one in idle:
            one.close()
        async with asyncio.timeout(20):
            while (await asyncio.to_thread(_try, url)) != 200:
                await asyncio.sleep(0.1)
    assert capfd.readouterr().err == ""


def _try(url: str) -> int:
    try:
        return get(url)[0]
    except (OSError, urllib.error.URLError):
        return 0


async def test_none_is_served_where_none_is_wanted():
    before = threading.active_count()
    async with serving(DiagnosticsConfig(listen=""), Diagnostics()) as url:
        assert (url, threading.active_count()) == ("", before)


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", "192.168.1.4:9464", "[::]:9464", "gateway:9464"])
def test_an_address_that_others_reach_is_open_on_purpose_or_not_at_all(listen):
    with pytest.raises(ValidationError, match="public = true"):
        DiagnosticsConfig(listen=listen)
    assert DiagnosticsConfig(listen=listen, public=True).address[1] == 9464


@pytest.mark.parametrize("listen", ["9464", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:9464"])
def test_what_is_no_address_says_how_to_write_one(listen):
    with pytest.raises(ValidationError, match=r"127\.0\.0\.1:9464"):
        DiagnosticsConfig(listen=listen)


@pytest.mark.parametrize(("listen", "address"), [("[::1]:1", ("::1", 1)), ("localhost:2", ("localhost", 2))])
def test_loopback_has_many_names(listen, address):
    assert DiagnosticsConfig(listen=listen).address == address
