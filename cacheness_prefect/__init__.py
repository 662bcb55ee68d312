"""Prefect results in a cacheness cache: keyed by values and code, verified, shared, and repaired.

store = CachenessStorage.load("shared")

@task(cache_policy=store.policy())
def clean(day: str) -> list[float]: ...
"""

from cacheness_prefect.locks import CachenessLockManager
from cacheness_prefect.policy import CachenessPolicy, cacheness_key
from cacheness_prefect.repair_flow import integrity_repair, repair_deployment
from cacheness_prefect.serializers import CachenessSerializer, CachenessTextSerializer
from cacheness_prefect.storage import CachenessStorage

__all__ = [
    "CachenessLockManager",
    "CachenessPolicy",
    "CachenessSerializer",
    "CachenessStorage",
    "CachenessTextSerializer",
    "cacheness_key",
    "integrity_repair",
    "repair_deployment",
]
