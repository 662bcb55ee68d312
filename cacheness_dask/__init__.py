"""Cache the results of Dask graphs: computed once, on any machine and scheduler."""

import cacheness_dask.delayed  # noqa: F401  registers delayed values with the encoder of keys
from cacheness import File
from cacheness_dask._task_spec import EntryVanished
from cacheness_dask.accepting import accept
from cacheness_dask.activation import RegisteredCache as Cache
from cacheness_dask.activation import caching, install, uninstall
from cacheness_dask.blocks import nocache
from cacheness_dask.configuration import load as _load_configuration
from cacheness_dask.explain import GraphExplanation, Picture, Row, explain, visualize
from cacheness_dask.history import Record
from cacheness_dask.live import Callback, Progress
from cacheness_dask.marks import mark
from cacheness_dask.run import CacheUnavailable, Run
from cacheness_dask.sources_and_sinks import register_sink, register_source, register_stateful

__all__ = [
    "Cache",
    "CacheUnavailable",
    "Callback",
    "EntryVanished",
    "File",
    "GraphExplanation",
    "Picture",
    "Progress",
    "Record",
    "Row",
    "Run",
    "accept",
    "caching",
    "explain",
    "install",
    "mark",
    "nocache",
    "register_sink",
    "register_source",
    "register_stateful",
    "uninstall",
    "visualize",
]

_load_configuration()
