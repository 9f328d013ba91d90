"""Nouns to rows and back: everything but samples, which have a faster way (:mod:`plugin.historian.sqlite.samples`)."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from plugin.domain import (
    Drift,
    DriftKind,
    Explanation,
    Fill,
    Flag,
    Gap,
    GapCause,
    GapState,
    Import,
    Meaning,
    Micros,
    ModelState,
    ModelVersion,
    OutputTag,
    Prediction,
    Reject,
    Remark,
    RemarkKind,
    Run,
    RunKind,
    RunResult,
    Tag,
    from_micros,
    micros,
    to_micros,
)

Record = dict[str, Any]
_MICROSECOND = timedelta(microseconds=1)


def _stamp(time: datetime | None) -> Micros | None:
    return None if time is None else to_micros(time)


def _time(stamp: Micros | None) -> datetime | None:
    return None if stamp is None else from_micros(stamp)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def tag_record(tag: Tag) -> Record:
    """Without its key."""
    return {
        "name": tag.name,
        "source": tag.source,
        "node": tag.node,
        "asset": tag.asset or None,
        "feature": tag.feature,
        "unit": tag.unit,
        "low": tag.low,
        "high": tag.high,
        "deadband": tag.deadband,
        "sampling": None if tag.sampling is None else micros(tag.sampling),
        "element": tag.element,
        "fill": tag.fill,
        "max_age": None if tag.max_age is None else micros(tag.max_age),
        "uncertain": tag.uncertain,
        "compression": tag.compression,
        "retention": tag.retention,
    }


def tag_of(row: Row[Any]) -> Tag:
    """From a row of ``tags``."""
    return Tag(
        id=row.id,
        name=row.name,
        source=row.source,
        node=row.node,
        asset=row.asset or "",
        feature=row.feature,
        unit=row.unit,
        low=row.low,
        high=row.high,
        deadband=row.deadband,
        sampling=None if row.sampling is None else row.sampling * _MICROSECOND,
        element=row.element,
        fill=Fill(row.fill),
        max_age=None if row.max_age is None else row.max_age * _MICROSECOND,
        uncertain=row.uncertain,
        compression=row.compression,
        retention=row.retention,
    )


def import_record(record: Import) -> Record:
    """With its key."""
    return {
        "id": record.id,
        "file": record.file,
        "started": to_micros(record.started),
        "finished": _stamp(record.finished),
        "position": record.position,
        "stored": record.stored,
        "duplicates": record.duplicates,
        "quarantined": record.quarantined,
        "options": dict(record.options),
    }


def import_of(row: Row[Any]) -> Import:
    """From a row of ``imports``."""
    return Import(
        id=row.id,
        file=row.file,
        started=from_micros(row.started),
        finished=_time(row.finished),
        position=row.position,
        stored=row.stored,
        duplicates=row.duplicates,
        quarantined=row.quarantined,
        options=row.options,
    )


def reject_record(reject: Reject, import_id: str) -> Record:
    """With its key."""
    return {
        "import_id": import_id,
        "row": reject.row,
        "column": reject.column,
        "content": reject.content,
        "reason": reject.reason,
    }


def reject_of(row: Row[Any]) -> Reject:
    """From a row of ``quarantine``."""
    return Reject(row.row, row.column, row.content, row.reason)


def remark_of(row: Row[Any]) -> Remark:
    """From a row of ``remarks``."""
    return Remark(row.source, row.tag, RemarkKind(row.kind), from_micros(row.source_time), row.detail)


def gap_of(row: Row[Any]) -> Gap:
    """From a row of ``gaps``."""
    return Gap(
        id=row.id,
        source=row.source,
        tag=row.tag,
        start=from_micros(row.start_time),
        end=_time(row.end_time),
        cause=GapCause(row.cause),
        detected=from_micros(row.detected),
        state=GapState(row.state),
        rows_filled=row.rows_filled,
        detail=row.detail,
    )


def run_record(run: Run) -> Record:
    """Without its key."""
    return {
        "model": run.model,
        "kind": run.kind,
        "scheduled": to_micros(run.scheduled),
        "started": _stamp(run.started),
        "finished": _stamp(run.finished),
        "result": run.result,
        "version": run.version,
        "assets": run.assets,
        "error": run.error,
        "stages": dict(run.stages),
        "unheard": dict(run.unheard),
    }


def run_of(row: Row[Any]) -> Run:
    """From a row of ``runs``."""
    return Run(
        id=row.id,
        model=row.model,
        kind=RunKind(row.kind),
        scheduled=from_micros(row.scheduled),
        started=_time(row.started),
        finished=_time(row.finished),
        result=RunResult(row.result),
        version=row.version,
        assets=row.assets,
        error=row.error,
        stages=row.stages,
        unheard=row.unheard,
    )


def output_record(tag: OutputTag) -> Record:
    """Without its key."""
    return {
        "model": tag.model,
        "asset": tag.asset,
        "output": tag.output,
        "unit": tag.unit,
        "low": tag.low,
        "high": tag.high,
        "description": tag.description,
        "meaning": tag.meaning,
        "states": list(tag.states),
    }


def prediction_record(prediction: Prediction, output_id: int) -> Record:
    """NaN is stored as NULL by the driver."""
    return {
        "as_of": to_micros(prediction.as_of),
        "output_id": output_id,
        "target_time": to_micros(prediction.target_time),
        "run_id": prediction.run,
        "valid_until": to_micros(prediction.valid_until),
        "value": prediction.value,
        "lower": prediction.lower,
        "upper": prediction.upper,
        "status": prediction.status,
        "coverage": prediction.coverage,
        "version": prediction.version,
    }


def output_of(row: Row[Any]) -> OutputTag:
    """From a row of what is joined with ``output_tags``."""
    return OutputTag(
        model=row.model,
        asset=row.asset,
        output=row.output,
        unit=row.unit,
        low=row.low,
        high=row.high,
        description=row.description,
        meaning=Meaning(row.meaning),
        states=tuple(row.states),
    )


def prediction_of(row: Row[Any]) -> Prediction:
    """From a row of ``predictions`` joined with ``output_tags``."""
    return Prediction(
        tag=output_of(row),
        version=row.version,
        as_of=from_micros(row.as_of),
        target_time=from_micros(row.target_time),
        valid_until=from_micros(row.valid_until),
        value=row.value,
        lower=row.lower,
        upper=row.upper,
        status=row.status,
        coverage=row.coverage,
        run=row.run_id,
    )


def flag_record(flag: Flag) -> Record:
    """NaN is stored as NULL by the driver."""
    return {
        "as_of": to_micros(flag.as_of),
        "model": flag.model,
        "asset": flag.asset,
        "run_id": flag.run,
        "version": flag.version,
        "raised": flag.raised,
        "score": flag.score,
        "threshold": flag.threshold,
        "status": flag.status,
    }


def flag_of(row: Row[Any]) -> Flag:
    """From a row of ``flags``."""
    return Flag(
        model=row.model,
        asset=row.asset,
        version=row.version,
        as_of=from_micros(row.as_of),
        raised=row.raised,
        score=_number(row.score),
        threshold=_number(row.threshold),
        status=row.status,
        run=row.run_id,
    )


def explanation_records(explanation: Explanation, output_id: int) -> list[Record]:
    """One per feature."""
    of = {"as_of": to_micros(explanation.as_of), "output_id": output_id, "run_id": explanation.run}
    return [{**of, "feature": feature, "share": share} for feature, share in explanation.shares.items()]


def explanations_of(rows: Iterable[Row[Any]]) -> Iterator[Explanation]:
    """From rows of ``explanations`` joined with ``output_tags``, those of one explanation next to each other."""
    for (as_of, _, run), group in groupby(rows, key=lambda row: (row.as_of, row.output_id, row.run_id)):
        features = list(group)
        yield Explanation(output_of(features[0]), from_micros(as_of), run, {row.feature: row.share for row in features})


def drift_record(drift: Drift) -> Record:
    """A row of ``drifts``."""
    record = {field.name: getattr(drift, field.name) for field in fields(drift)}
    record |= {name: _stamp(record[name]) for name in ("since", "noticed", "until")}
    return record | {"limit_value": record.pop("limit")}


def drift_of(row: Row[Any]) -> Drift:
    """From a row of ``drifts``."""
    times = {"since": from_micros(row.since), "noticed": from_micros(row.noticed), "until": _time(row.until)}
    record = {**row._mapping, **times, "kind": DriftKind(row.kind)}
    return Drift(limit=record.pop("limit_value"), **record)


def version_record(version: ModelVersion) -> Record:
    """Metrics that are no finite number become null, for JSON has no word for them."""
    return {
        "model": version.model,
        "version": version.version,
        "kind": version.kind,
        "state": version.state,
        "created": to_micros(version.created),
        "spec": dict(version.spec),
        "metrics": _finite(version.metrics),
        "provenance": dict(version.provenance),
        "artifact": version.artifact,
        "sha256": version.sha256,
    }


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


def version_of(row: Row[Any]) -> ModelVersion:
    """From a row of ``model_versions``."""
    return ModelVersion(
        model=row.model,
        version=row.version,
        kind=row.kind,
        state=ModelState(row.state),
        created=from_micros(row.created),
        spec=row.spec,
        metrics={name: _number(value) for name, value in row.metrics.items()},
        provenance=row.provenance,
        artifact=row.artifact,
        sha256=row.sha256,
    )
