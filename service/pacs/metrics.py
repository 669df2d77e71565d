"""Prometheus metrics of a DICOM node, in the registry of its service."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.pacs.spool import Spool

RECEIVED, STORED, REFUSED = "received", "stored", "refused"


class NodeMetrics:
    """What a node received and stored, and what its spool holds."""

    def __init__(self, registry: CollectorRegistry, spool: Spool) -> None:
        self.objects = Counter(
            "pranet_dicom_objects_total",
            "DICOM objects that peers sent by outcome: received, or refused with the reason.",
            ["outcome"],
            registry=registry,
        )
        self.segmentations = Counter(
            "pranet_dicom_segmentations_total",
            "Segmentations by outcome: stored in the PACS, or refused by it.",
            ["outcome"],
            registry=registry,
        )
        for counter, outcomes in ((self.objects, (RECEIVED, REFUSED)), (self.segmentations, (STORED, REFUSED))):
            for outcome in outcomes:  # from 0 on, so that increase() sees the first event
                counter.labels(outcome)
        spooled = Gauge(
            "pranet_dicom_spooled_objects",
            "DICOM objects in the spool: received (to be segmented), segmented (to be stored), or failed.",
            ["place"],
            registry=registry,
        )
        for place, count in spool.counts().items():
            spooled.labels(place).set_function(count)
