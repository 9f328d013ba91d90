"""The sections [publish] and [write_back]: secure by default, and a wrong value says what it should be."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from plugin.publish.config import PublishConfig, WriteBackConfig, WriteRule

_RULE = {
    "source": "plant",
    "model": "rul",
    "output": "rul",
    "node": "nsu=urn:plant;s={asset}.advisory.rul",
    "low": 0.0,
    "high": 200.0,
}


def test_the_default_is_encrypted_local_and_writes_nothing():
    config = PublishConfig()
    assert config.security == ("Basic256Sha256_SignAndEncrypt",)
    assert "127.0.0.1" in config.endpoint
    write_back = WriteBackConfig()
    assert not write_back.enabled
    assert write_back.rules == ()


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("endpoint", "http://127.0.0.1:4841", "opc.tcp://host:port"),
        ("endpoint", "opc.tcp://127.0.0.1/foretag", "opc.tcp://host:port"),
        ("endpoint", "opc.tcp://user:secret@127.0.0.1:4841", "without a user"),
        ("endpoint", "opc.tcp://127.0.0.1:99999", "opc.tcp://host:port"),
        ("security", ["Basic128Rsa15_Sign"], "Basic256Sha256_SignAndEncrypt"),
        ("security", [], "at least 1"),
        ("application_uri", "foretag", "pattern"),
        ("max_sessions", 0, "greater than or equal to 1"),
        ("porrt", 1, "not permitted"),
    ],
)
def test_a_wrong_publish_section_says_what_is_wanted(field, value, remedy):
    with pytest.raises(ValidationError, match=remedy):
        PublishConfig.model_validate({field: value})


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("node", "ns=2;s=engine.rul", "by namespace URI"),
        ("node", "nsu=urn:plant;s={machine}.rul", "unknown placeholders"),
        ("node", "nsu=urn:plant;s={asset", "unbalanced braces"),
        ("low", 300.0, "must be below high"),
        ("high", float("nan"), "finite"),
        ("minimum_interval", "soon", "is no duration"),
        ("minimum_interval", "2d", "less than or equal"),
        ("uncertain", "maybe", "write"),
    ],
)
def test_a_wrong_rule_says_what_is_wanted(field, value, remedy):
    with pytest.raises(ValidationError, match=remedy):
        WriteRule.model_validate(_RULE | {field: value})


def test_a_rule_reads_durations_and_defaults_to_all_assets():
    rule = WriteRule.model_validate(_RULE | {"minimum_interval": "30s"})
    assert rule.minimum_interval == timedelta(seconds=30)
    assert rule.assets == "*"
    assert rule.uncertain == "mark"
