"""Tensors of torch, which is no dependency: these run where it is installed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="torch is no dependency of cacheness; make matrix runs these tests")

from cacheness import UnifiedCache  # noqa: E402
from cacheness.codecs.pickle import PickleCodec  # noqa: E402
from cacheness.codecs.tensors import _WIDTHS, TensorCodec  # noqa: E402
from cacheness.testing.contracts.codecs import CodecContract  # noqa: E402

TYPES = sorted(
    {kind for kind in vars(torch).values() if isinstance(kind, torch.dtype) and not str(kind).startswith("torch.q")},
    key=str,
)


def filled(kind: Any, *shape: int) -> Any:
    """A tensor of any type, with every byte another."""
    size = int(np.prod(shape)) * kind.itemsize
    memory = torch.arange(size, dtype=torch.int64).remainder(2 if kind is torch.bool else 251).to(torch.uint8)
    return memory.view(kind).reshape(shape)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.requires_grad != other.requires_grad or one.__dict__ != other.__dict__:
        return False
    return memory_of(one) == memory_of(other)


def memory_of(tensor: Any) -> bytes:
    plain = tensor.detach().resolve_conj().resolve_neg()
    dense = plain.view(getattr(torch, _WIDTHS[plain.dtype.itemsize])).contiguous().clone()
    return bytes(dense.untyped_storage())[: dense.numel() * dense.dtype.itemsize]


class TestTensorCodec(CodecContract):
    codec = TensorCodec()
    values = (
        *(filled(kind, 2, 3) for kind in TYPES),
        *(filled(kind, 3, 2).T for kind in (torch.bfloat16, torch.float8_e4m3fn, torch.complex64)),
        filled(torch.float32),
        filled(torch.uint16, 0, 4),
        filled(torch.complex32, 1000)[17:20],
        torch.empty(0),
    )
    refused = (
        np.zeros(3),
        [torch.zeros(3)],
        torch.zeros(3, requires_grad=True),
        torch.nn.Parameter(torch.zeros(3)),
        torch.zeros(3).to_sparse(),
        torch.zeros(3, device="meta"),
        torch.zeros(3, dtype=torch.complex64).conj(),
        torch.zeros(10)[::3],
    )

    def same(self, one: Any, other: Any) -> bool:
        return same(one, other)


def test_numpy_opens_a_stored_tensor() -> None:
    values = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    payload = b"".join(TensorCodec().encode(values))
    assert np.load(io.BytesIO(payload))["torch.float32"].tolist() == values.tolist()


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_tensor_of_any_type_comes_back_from_within_anything(kind: Any) -> None:
    value = {"weights": [filled(kind, 4, 5)], "column": filled(kind, 4, 5)[:, 1], "one": filled(kind)}
    found = PickleCodec().decode(bytearray(b"".join(PickleCodec().encode(value))))
    assert same(found["weights"][0], value["weights"][0])
    assert same(found["column"], value["column"])
    assert same(found["one"], value["one"])


BIG = torch.rand(500, 5000)
FEW = {
    "rows": BIG[3:5, :4],
    "with gaps": BIG[::100, ::1000],
    "repeated": torch.rand(1, 3).expand(100_000, 3)[:5],
    "conjugate": torch.rand(2_000_000).to(torch.complex64)[:3].conj(),
    "with a gradient": BIG[0, :3].clone().requires_grad_(),
    "parameter": torch.nn.Parameter(BIG[0, :3]),
    "within": {"a": BIG[0, :3], "b": [BIG[:3, 0]]},
    "module": torch.nn.Linear(3, 2),
}


@pytest.mark.parametrize("name", FEW)
def test_a_few_values_of_a_large_tensor_are_stored_small(name: str, tmp_path: Any) -> None:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        assert cache.put(FEW[name], n=1).raw_size < 4000
        found = cache.get(n=1)
        if isinstance(FEW[name], torch.Tensor):
            assert same(found, FEW[name])
            with torch.no_grad():
                found += 1  # it is the caller's own
        if name == "module":
            assert same(found.weight, FEW[name].weight)


def test_layouts_in_memory_come_back() -> None:
    image = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    found = PickleCodec().decode(bytearray(b"".join(PickleCodec().encode(image))))
    assert same(found, image)
    assert found.stride() == image.stride()


def test_one_tensor_in_two_places_is_one_tensor_afterwards() -> None:
    tensor = torch.rand(3)
    found = PickleCodec().decode(bytearray(b"".join(PickleCodec().encode([tensor, tensor]))))
    assert found[0] is found[1]


def test_a_cache_without_pickle_stores_tensors(tmp_path: Any) -> None:
    with UnifiedCache(cache_dir=tmp_path, safe_codecs=True) as cache:
        cache.put(filled(torch.bfloat16, 7), n=1)
        assert same(cache.get(n=1), filled(torch.bfloat16, 7))
