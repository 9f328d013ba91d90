"""What several deliveries bring together, and the check that every store makes of samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from plugin.domain import Gap, Remark, SampleBatch
from plugin.errors import StoreError
from plugin.protocols import Delivery


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """The content of one transaction."""

    batch: SampleBatch
    gaps: Sequence[Gap]
    remarks: Sequence[Remark]
    checkpoints: Mapping[str, str]

    @classmethod
    def of(cls, deliveries: Sequence[Delivery]) -> Self:
        """In the order of the deliveries; the last checkpoint under a key wins."""
        return cls(
            SampleBatch.concatenate([delivery.samples for delivery in deliveries]),
            [gap for delivery in deliveries for gap in delivery.gaps],
            [remark for delivery in deliveries for remark in delivery.remarks],
            {key: text for delivery in deliveries for key, text in delivery.checkpoint.items()},
        )

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (len(self.batch) or self.gaps or self.checkpoints or self.remarks)


def refuse_strangers(batch: SampleBatch, last_tag: int, what: str) -> None:
    """StoreError where a tag is none of 1 .. ``last_tag``; ``what``: such as ``historian.db: samples``."""
    if len(batch) and (batch.tag.min() < 1 or batch.tag.max() > last_tag):
        unknown = sorted({int(tag) for tag in batch.tag if not 1 <= tag <= last_tag})
        raise StoreError(f"{what} of tags that are not registered: {unknown[:10]}")
