"""Which nodes have a past, and where in the historian it is."""

from collections.abc import Iterator, Mapping, Sequence

from asyncua import ua

from plugin.domain import Meaning, OutputTag, Part, Tag
from plugin.protocols import Store
from plugin.publish.history.past import OutputPast, Past, TagPast

_VALUE, _BOUNDS = {"": Part.VALUE}, {"LowerBound": Part.LOWER, "UpperBound": Part.UPPER}
_PARTS: Mapping[Meaning, Mapping[str, Part]] = {
    Meaning.FLAG: {**_VALUE, "Score": Part.SCORE, "Threshold": Part.THRESHOLD},
    Meaning.STATE: _VALUE,
    Meaning.FORECAST: {"Expected": Part.VALUE},
}
"""By what an output means: the nodes that have a past, below its own. Of a forecast it is a node that is no array."""
TAGS = "Foretag.Tags."


def parts(tag: OutputTag) -> Mapping[str, Part]:
    """By the name of a node below the output's own, which is the empty one."""
    return _PARTS.get(tag.meaning, {**_VALUE, **_BOUNDS})


def names(tag: OutputTag) -> Iterator[str]:
    """Of the nodes of an output that have a past."""
    return (f"{tag.name}.{part}" if part else tag.name for part in parts(tag))


class Finder:
    """Finds the past of a node of ours."""

    def __init__(self, store: Store, namespace: int, tags: Sequence[Tag]) -> None:
        """``namespace``: index of ours; ``tags``: those that are mirrored."""
        self._store = store
        self._namespace = namespace
        self._tags = {tag.name: tag for tag in tags}
        self._outputs: dict[str, OutputTag] = {}

    def add(self, tags: Sequence[OutputTag]) -> None:
        """Outputs that there are from now on."""
        self._outputs |= {tag.name: tag for tag in tags}

    def __call__(self, node: ua.NodeId) -> Past | None:
        """None: it has no past."""
        if node.NamespaceIndex != self._namespace or not isinstance(node.Identifier, str):
            return None
        name = str(node.Identifier)
        if name.startswith(TAGS):
            tag = self._tags.get(name.removeprefix(TAGS))
            return TagPast(self._store, tag) if tag else None
        return self._of_output(name, "") or self._of_output(*name.rpartition(".")[::2])

    def _of_output(self, name: str, part: str) -> Past | None:
        tag = self._outputs.get(name)
        found = parts(tag).get(part) if tag else None
        return OutputPast(self._store, tag, found) if tag and found else None
