"""Private names of asyncua that the simulated plant relies on; a new release must be looked at before it is taken."""

import copy
import inspect

import asyncua
from asyncua import Server, ua
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.monitored_item_service import MonitoredItemValues
from asyncua.server.uaprocessor import UaProcessor

from opcua_sim.publishing import _Published


def test_release():
    assert asyncua.__version__ == "2.1.0"


def test_names_and_signatures():
    assert list(inspect.signature(UaProcessor._process_message).parameters) == [
        *("self", "typeid", "requesthdr", "seqhdr", "body")
    ]
    assert list(inspect.signature(OPCUAProtocol).parameters) == [
        *("iserver", "policies", "clients", "closing_tasks", "limits")
    ]
    assert inspect.iscoroutinefunction(BinaryServer._close_tasks)
    assert inspect.iscoroutinefunction(Server._setup_server_nodes)
    assert list(inspect.signature(BinaryServer._make_protocol).parameters) == ["self"]
    server = Server(InternalServer())
    assert server._policies == []
    assert server.iserver._external_sessions == {}


def test_published_values_are_not_copied():
    value = _Published(ua.Variant(1.0))
    values = MonitoredItemValues()
    values.set_current_datavalue(value)
    assert values.get_current_datavalue() is value is copy.deepcopy(value)
