"""Ours are always there; a stranger's kind only where the configuration allows it."""

import importlib.metadata

import pytest

from models import catalogue
from models.pca_anomaly import PcaAnomaly


class Stranger(PcaAnomaly):
    name = "stranger"


def offer(monkeypatch, name, target):
    point = importlib.metadata.EntryPoint(name, target, catalogue.GROUP)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [point])


def test_ours_are_there():
    assert set(catalogue.kinds()) == {
        "rul_lstm",
        "quality_mlp",
        "pca_anomaly",
        "var_anomaly",
        "lstm_autoencoder",
        "conv_autoencoder",
        "anomaly",
        "failure_mlp",
        "failure_lstm",
        "forecast_lstm",
    }
    assert all(kind.name == name for name, kind in catalogue.kinds().items())


def test_what_is_installed_and_not_allowed_is_never_loaded(monkeypatch):
    offer(monkeypatch, "stranger", "no.such.module:Kind")
    assert "stranger" not in catalogue.kinds()


def test_what_is_allowed_is_loaded(monkeypatch):
    offer(monkeypatch, "stranger", "models.pca_anomaly:PcaAnomaly")
    monkeypatch.setattr(PcaAnomaly, "name", "pca_anomaly")
    with pytest.raises(ValueError, match="is there already"):
        catalogue.kinds(["stranger"])
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Stranger)
    assert catalogue.kinds(["stranger"])["stranger"].name == "stranger"


def test_what_is_allowed_and_not_installed_is_an_error():
    with pytest.raises(ValueError, match="no installed package offers a model kind 'gone'"):
        catalogue.kinds(["gone"])
