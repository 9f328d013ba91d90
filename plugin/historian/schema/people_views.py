"""Views of alarms and events, and of what people bring and do."""

from plugin.historian.schema.view import Column, View, Words, quality

_STATE = """CASE WHEN NOT a.enabled THEN 'out_of_service'
    WHEN a.shelved_until IS NOT NULL THEN 'shelved'
    WHEN a.suppressed OR a.gathered THEN 'suppressed'
    WHEN a.active AND a.acknowledged THEN 'acknowledged'
    WHEN a.active THEN 'unacknowledged'
    WHEN a.acknowledged THEN 'normal'
    ELSE 'returned' END"""


def alarms(sql: Words) -> View:
    columns = (
        Column("id", "a.id", "Of the condition"),
        Column("branch", "a.branch", "An earlier state that waits to be acknowledged; empty: the current one"),
        Column("source", "a.source", "Asset, model or plant server"),
        Column(
            "state",
            _STATE,
            "In the words of ISA-18.2: `normal`, `unacknowledged`, `acknowledged`, `returned` (not active any more and "
            "not acknowledged), `shelved`, `suppressed`, `out_of_service`",
        ),
        Column("active", "a.active", "Whether what it warns of is the case"),
        Column("level", "a.level", "How far it has gone: 0 not active, 1 and 2 beyond the first and the second limit"),
        Column("severity", "a.severity", "1 to 1000"),
        Column("message", "a.message", "For a person"),
        Column("type", "a.condition_type", "Type of the condition (OPC 10000-9)"),
        Column("class", "a.condition_class", "Class of the condition"),
        Column("model", "a.model", "Whose flag it follows; NULL: none's"),
        Column("version", "a.version", "Of the model"),
        *sql.times("time", "a.time", "Last change of state"),
        *sql.times("active_time", "a.active_time", "When it last became active"),
        *sql.times("acknowledged_time", "a.acknowledged_time", "When it was last acknowledged"),
        *sql.times("returned_time", "a.returned_time", "When it last ceased to be active"),
        *sql.times("shelved_until", "a.shelved_until", "NULL: not shelved"),
        quality("a.quality"),
        Column("comment", "a.comment", "Of an operator"),
        Column("user_name", "a.client_user", "Who acknowledged or commented last"),
    )
    return View("v_alarms", "How every alarm stands.", columns, "alarms AS a")


def events(sql: Words) -> View:
    columns = (
        *sql.times("time", "e.time", "When it happened, by its source"),
        Column("source", "e.source", "Plant server that told it, or `foretag`"),
        Column("source_name", "e.source_name", "What it is about"),
        Column("asset", "e.asset", "Machine; NULL: none"),
        Column("type", "e.type", "OPC UA type"),
        Column("condition", "e.condition", "Key in `v_alarms`; NULL: no alarm's event"),
        Column("severity", "e.severity", "1 to 1000"),
        Column("message", "e.message", "For a person"),
        Column("fields", "e.fields", "What its type adds, as JSON"),
        *sql.times("received", "e.received", "When we had it"),
        Column("id", "e.id", "EventId"),
    )
    return View("v_events", "Events, and changes of alarms, as they came.", columns, "events AS e")


def lab_samples(sql: Words) -> View:
    columns = (
        Column("id", "l.id", "UUID, or the laboratory's own number"),
        Column("asset", "l.asset", "Machine"),
        Column("quantity", "l.quantity", "What was measured"),
        *sql.times("taken", "l.taken", "When the specimen was drawn"),
        *sql.times("known", "l.known", "When we had the result"),
        Column("value", "l.value", "The result; NULL: none"),
        Column("unit", "l.unit", "Of the value"),
        quality("l.status"),
        Column("user_name", "l.user_name", "Who told it"),
        Column("note", "l.note", "For a person"),
    )
    return View("v_lab_samples", "What the laboratory measured.", columns, "lab_samples AS l")


def labels(sql: Words) -> View:
    columns = (
        Column("id", "l.id", "UUID"),
        Column("kind", "l.kind", "`failure`, `work_order`, `verdict` (on a flag) or `normal`"),
        Column("asset", "l.asset", "Machine"),
        *sql.times("start_time", "l.start_time", "When it happened or began"),
        *sql.times("end_time", "l.end_time", "NULL: a moment (failure, verdict), or it lasts"),
        Column("verdict", "l.verdict", "Of a flag: `confirmed`, `false_alarm`, `unclear`"),
        Column("model", "l.model", "Of the flag"),
        *sql.times("as_of", "l.as_of", "Of the flag"),
        Column("reference", "l.reference", "Such as the number of a work order"),
        Column("note", "l.note", "For a person"),
        Column("user_name", "l.user_name", "Who told it"),
        *sql.times("created", "l.created", "When we had it"),
    )
    return View("v_labels", "What people say happened.", columns, "labels AS l")


def audit(sql: Words) -> View:
    columns = (
        *sql.times("time", "a.time", "By our clock"),
        Column("user_name", "a.user_name", "Who; `foretag` for what a rule did"),
        Column("origin", "a.origin", "`command`, `page`, `opcua` or `service`"),
        Column("action", "a.action", "Such as `promote`, `label`, `lab`, `correct`, `reload`, `trust`, `import`"),
        Column("subject", "a.subject", "What was changed"),
        Column("before", "a.before", "As JSON"),
        Column("after", "a.after", "As JSON"),
        Column("id", "a.id", "In order of writing"),
    )
    return View("v_audit", "Every change that a person or a promotion made.", columns, "audit_log AS a")
