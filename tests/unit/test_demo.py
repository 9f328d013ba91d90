"""The demonstration's configuration: complete, and with an operator whose key is this folder's alone."""

from plugin import pki
from plugin.config import load
from plugin.demo.job import Demo, write_config

_PLANT = "opc.tcp://127.0.0.1:4840/plant"


def test_the_operators_key_is_the_folders_own_and_stays(tmp_path):
    demo, other = Demo(tmp_path / "demo"), Demo(tmp_path / "other")
    for each in (demo, other):
        each.folder.mkdir()
    first, strangers = (load(write_config(each, _PLANT)).publish for each in (demo, other))
    second = load(write_config(demo, _PLANT)).publish
    (operator,) = first.users
    own = demo.folder / "operator" / "own"
    assert (operator.name, operator.role, first.lets_anonymous_in) == ("operator", "operator", True)
    assert operator.certificate == pki.thumbprint((own / "own.der").read_bytes())
    assert (own / "own.key").stat().st_mode & 0o777 == 0o600
    assert second == first
    assert strangers.users[0].certificate != operator.certificate
