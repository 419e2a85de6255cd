"""One registry of trained artefacts on disk: what there is, by the hash of its content, whole and unchanged."""

from nerv_fl.registry.entry import Entry, read_entry
from nerv_fl.registry.publish import write_model_bundle
from nerv_fl.registry.store import Registry, open_registry

__all__ = ["Entry", "Registry", "open_registry", "read_entry", "write_model_bundle"]
