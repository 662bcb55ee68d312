"""The families of values: templates of expressions, and what can be observed of the values.

One template a line; each `<<a|b>>` in it stands for one of its choices, and all combinations are tried.
Values that the key refuses are counted, and so are those that it tells apart where nothing here does.
What docs/explanation/keys.md names as not counting (the layout of an array, which parts are one object) is not
observed.
"""

from __future__ import annotations

import io
import itertools
import pickle
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

#: What two values of a family must have in common to be one.
Observe = Callable[[Any], Any]

_CHOICE: Final = re.compile(r"<<(.*?)>>")


@dataclass(frozen=True)
class Family:
    """Expressions of one kind of value, what they need, and what can be observed of the values."""

    name: str
    setup: str
    templates: str
    observations: dict[str, Observe]
    needs: str = ""

    def expressions(self) -> Iterator[str]:
        """Every expression, each once."""
        seen: dict[str, None] = {}
        for line in filter(None, map(str.strip, self.templates.splitlines())):
            parts = _CHOICE.split(line)
            choices = [part.split("|") if number % 2 else [part] for number, part in enumerate(parts)]
            seen.update(dict.fromkeys("".join(chosen) for chosen in itertools.product(*choices)))
        yield from seen


def _pickled(value: Any) -> bytes:
    """Pickle without memo: it shows what a value holds, and not which of its parts are one object."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.fast = True
    pickler.dump(value)
    return buffer.getvalue()


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _attributes(value: Any) -> Any:
    return sorted((name, repr(part)) for name, part in vars(value).items())


def _named(*names: str) -> Observe:
    return lambda value: [(name, repr(getattr(value, name, None))) for name in names]


_PLAIN: Final[dict[str, Observe]] = {"type": _type, "repr": repr, "str": str, "attributes": _attributes}

_SCALARS: Final = """
None True False 0 1 -1 2**70 0.0 -0.0 1.0 float('nan') float('inf') 1j complex(-0.0,0) '' 'a' b'' b'a' bytearray(b'a')
'\\x00' ... NotImplemented range(3) range(0,3,2) slice(1) int str D('1.0') D('1.00') F(1,2) 'é' 'e\\u0301'
""".split()  # noqa: SIM905 - a list of strings would need a line each


def _nested(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(_SCALARS)
    parts = [_nested(rng, depth - 1) for _ in range(rng.randrange(4))]
    keys = ["0", "1", "'a'", "'b'", "b'a'", "(1,)", "None", "1.5"]
    rng.shuffle(keys)
    items = ", ".join(f"{key}: {part}" for key, part in zip(keys, parts, strict=False))
    listed = "".join(f"{part}, " for part in parts)
    wholes = (f"[{listed}]", f"({listed})", f"{{{items}}}", f"OrderedDict({{{items}}})", f"deque([{listed}])")
    return rng.choice([*wholes, f"NS(x=[{listed}])"])


def _random(count: int) -> str:
    rng = random.Random(20)
    return "\n".join(_nested(rng, 3) for _ in range(count))


def _numbers(value: Any) -> Any:
    import numpy as np

    plain = np.asarray(value)
    return value.shape, [repr(one) for one in plain.ravel().tolist()] if plain.dtype.hasobject else plain.tobytes()


def _dtype(value: Any) -> Any:
    return str(value.dtype), getattr(value.dtype, "descr", ""), value.dtype.metadata, type(value.dtype)


def _masked(value: Any) -> Any:
    return value.mask.tolist(), value.fill_value, value.hardmask, value.data.tobytes()


def _axes(value: Any) -> Any:
    axes = [one for one in (value, getattr(value, "index", None), getattr(value, "columns", None)) if one is not None]
    return [
        (_type(one), [repr(getattr(one, name, None)) for name in ("name", "names", "dtype", "freq", "tz", "attrs")])
        for one in axes
    ]


def _cells(value: Any) -> Any:
    return [(repr(one), type(one)) for one in value.to_numpy(dtype=object).ravel()]


def _columns(value: Any) -> Any:
    return [(name, str(value[name].dtype), type(value[name].array), _cells(value[name])) for name in value]


def _arrow_schema(value: Any) -> Any:
    schema = getattr(value, "schema", value)
    fields = [(one.name, one.nullable, one.metadata, str(one.type)) for one in schema]
    return fields, schema.metadata


def _arrow_inside(value: Any) -> Any:
    kind = value.type
    parts = [kind.field(n) for n in range(kind.num_fields)]
    return str(kind), [(one.name, one.nullable) for one in parts], getattr(kind, "ordered", None)


FAMILIES: Final[list[Family]] = [
    Family(
        "built-in values",
        """
from collections import OrderedDict, deque
from types import SimpleNamespace as NS
from decimal import Decimal as D
from fractions import Fraction as F
""",
        _random(700),
        {**_PLAIN, "pickle": _pickled},
    ),
    Family(
        "standard library",
        """
import array, collections, datetime as dt, decimal, enum, functools, ipaddress
import operator, pathlib, re, types, uuid, zoneinfo
P = collections.namedtuple("P", "x y")
Q = collections.namedtuple("Q", "x z")
class E(enum.Enum): A = 1; B = 2
class F(enum.Flag): A = 1; B = 2
hours = dt.timedelta(hours=1)
def noted(error, *notes):
    for note in notes: error.add_note(note)
    return error
def given(error, name, part):
    setattr(error, name, part)
    return error
""",
        """
array.array('<<b|B|h|H|i|I|l|L|q|Q|f|d>>', [<<|0|1, 2>>])
dt.datetime(2020, 10, 25, 1, 30, fold=<<0|1>>, tzinfo=<<None|dt.UTC|dt.timezone(hours * 0, 'Z')|dt.timezone(hours)>>)
dt.datetime(2020, 10, 25, 1, 30, fold=<<0|1>>, tzinfo=zoneinfo.ZoneInfo('<<UTC|Europe/Paris|Europe/Berlin>>'))
dt.timedelta(<<0|-1>>, <<0|86399>>, <<0|1>>)
dt.time(1, fold=<<0|1>>, tzinfo=<<None|dt.UTC>>)
decimal.Decimal('<<1|1.0|1E0|-0|0|0E5|NaN|sNaN|NaN1|-Infinity>>')
re.compile(<<'a'|b'a'|'a(?i:b)'>>, <<0|16|re.A>>)
collections.deque([1, 2], maxlen=<<None|2|3>>)
collections.defaultdict(<<None|int|list>>, {'a': 1})
collections.Counter('<<ab|ba|aab>>')
collections.ChainMap(<<{}|{1: 2}>>, <<{}|{1: 2}|{1: 3}>>)
<<P|Q|complex>>(<<1, 2|1, 2.5>>)
<<E.A|E.B|F.A|F.B|F(3)|F(0)|1|2>>
pathlib.<<PurePosixPath|PureWindowsPath>>('<<a|a/b|a//b|./a>>')
ipaddress.<<ip_address('1.2.3.4')|ip_address('::1')|ip_address('::1%eth0')|ip_network('10.0.0.0/8')>>
ipaddress.ip_interface('<<10.0.0.1/8|10.0.0.2/8|10.0.0.1/9>>')
<<ValueError|KeyError|OSError>>(<<|'a'|1, 'a'|2, 'b', 'c'>>)
noted(ValueError('a'), <<'n'|'n', 'm'|'nm'>>)
given(ValueError('a'), '<<__cause__|__context__>>', <<None|KeyError(1)|KeyError(2)>>)
given(ValueError('a'), '<<code|detail>>', <<1|2>>)
ExceptionGroup('<<a|b>>', [<<ValueError(1)|KeyError(1)>>])
operator.<<itemgetter(1)|itemgetter(1, 2)|itemgetter('1')|attrgetter('a')|attrgetter('a.b')>>
operator.methodcaller(<<'a'|'a', 1|'a', x=1|'a', x=2>>)
functools.partial(<<int|int, '1'|int, base=2|float>>)
types.SimpleNamespace(<<a=1|a=2|b=1|>>)
types.MappingProxyType(<<{1: 2}|collections.OrderedDict({1: 2})|collections.Counter({1: 2})>>)
uuid.UUID(int=<<1|2>>)
memoryview(<<b'ab'|bytearray(b'ab')|b'abcd'>>)
memoryview(b'abcd').cast('<<H|h|I|b|B>>')
types.GenericAlias(<<list, (int,)|list, (str,)|dict, (int, str)>>)
<<list[int]|tuple[int, ...]|tuple[int]|dict[int, str]>>
int.__or__(int, str) if False else (int.__class__.__or__(int, <<str|bytes|None>>))
""",
        {
            **_PLAIN,
            "notes": lambda error: (error.__notes__, error.args),
            "causes": _named("__cause__", "__context__", "__suppress_context__", "exceptions"),
            "details": _named("maxlen", "fold", "default_factory", "flags", "typecode", "format", "readonly", "tzinfo"),
        },
    ),
    Family(
        "classes of the user's",
        """
import attrs, dataclasses, pydantic
@dataclasses.dataclass
class D:
    x: int = 1
    hidden: int = dataclasses.field(default=0, repr=False, compare=False)
@attrs.define(slots=False)
class A:
    x: int = 1
    hidden: int = attrs.field(default=0, repr=False, eq=False)
class M(pydantic.BaseModel):
    model_config = {"extra": "allow"}
    x: int = 1
    y: int = 0
    _p: int = pydantic.PrivateAttr(0)
class S:
    __slots__ = ("a", "b")
class L(list): pass
class I(int): pass
class T(tuple): pass
class Dict(dict): pass
class Text(str):
    __slots__ = ("a",)
def given(value, **parts):
    for name, part in parts.items(): object.__setattr__(value, name, part)
    return value
def private(model, part):
    model._p = part
    return model
""",
        """
given(<<D|A>>(x=<<1|1.0|True>>, hidden=<<0|1>>), <<|e=1|e=2|f=1>>)
private(M(<<|x=1|x=2|y=0|z=1|x=1, z=1|x=1, y=0>>), <<0|1>>)
given(S(), <<|a=1|b=1|a=1, b=1|a=None>>)
given(Text('<<a|b>>'), <<|a=1|a=2>>)
given(<<L([1])|I(1)|T((1,))|Dict(a=1)>>, <<|e=1|e=2|f=1>>)
""",
        {
            **_PLAIN,
            "slots": lambda value: [repr(getattr(value, name, "unset")) for name in ("a", "b", "hidden")],
            "model": lambda model: (model.model_fields_set, model.model_extra, model._p),
        },
    ),
    Family(
        "NumPy",
        """
import numpy as np
nan = float("nan")
class Tagged(np.ndarray): pass
def tagged(**parts):
    array = np.arange(2).view(Tagged)
    array.__dict__.update(parts)
    return array
""",
        """
np.array(<<[]|0|[0, 1]|[[0, 1]]|[[0], [1]]>>, dtype='<<?|i1|u1|<i4|>i4|f2|f4|f8|c8|O>>')
np.array(['<<|a|b>>'], dtype='<<U1|U2|S1|S2|O>>')
np.array([<<0|1>>], dtype='<<M8[D]|M8[s]|M8[2s]|m8[D]|m8[s]|m8>>')
np.zeros(2, dtype=<<[('a', 'i4')]|[('b', 'i4')]|[('a', 'i4'), ('b', 'i1')]|[(('title', 'a'), 'i4')]>>)
np.zeros(2, dtype=np.dtype([('a', 'i1'), ('b', 'i4')], align=<<True|False>>))
np.ma.array([1, 2], mask=<<False|[0, 0]|[0, 1]>>, fill_value=<<None|7>>)
np.ma.array([1, <<2|9>>], mask=[0, 1], hard_mask=<<True|False>>)
np.zeros(2, [('a', 'i4')]).view(np.<<recarray|ndarray>>)
np.<<int32|int64|longlong|float32|float64|longdouble|bool_|str_|bytes_>>(<<0|1>>)
np.datetime64(<<'NaT'|'NaT', 's'|0, 's'|0, 'D'|'2020'>>)
tagged(<<|note=1|note=2>>)
np.array([<<nan|0.0|-0.0>>])
np.dtype(<<'i4'|'>i4'|[('a', 'i4')]|'V4'|'S4'|'M8[s]'>>)
np.dtype('i4', metadata={'a': <<1|2>>})
np.random.<<default_rng|RandomState>>(<<1|2>>)
np.array([<<'a'|'b'>>], dtype=np.dtypes.StringDType(<<|na_object=None|coerce=False>>))
np.poly1d([1, <<2|3>>], variable='<<x|z>>')
np.polynomial.<<Polynomial|Chebyshev>>([1, 2], domain=[0, <<1|2>>])
""",
        {
            "type": _type,
            "repr": repr,
            "attributes": _attributes,
            "numbers": _numbers,
            "dtype": _dtype,
            "metadata": _named("metadata", "isalignedstruct", "fields", "variable"),
            "mask": _masked,
        },
        needs="numpy",
    ),
    Family(
        "pandas",
        """
import datetime as dt
import numpy as np, pandas as pd
def same(frame, **parts):
    return frame
def flagged(frame):
    return frame.set_flags(allows_duplicate_labels=False)
def noted(frame, **parts):
    frame.attrs.update(parts)
    return frame
""",
        """
pd.Series(<<[]|[0, 1]>>, dtype='<<i4|i8|Int64|f8|Float64|object|category|boolean>>', name=<<None|'a'|1>>)
pd.Series(<<['a', 'b']|['a', None]>>, dtype=<<object|'string'|'str'|'string[pyarrow]'|'category'>>)
pd.Series(['a', None], dtype=pd.StringDtype('<<python|pyarrow>>', na_value=<<pd.NA|np.nan>>))
pd.Series([1, None], dtype='<<Int64|Float64|object|f8|int64[pyarrow]>>')
pd.Series(pd.Categorical(['<<a|b>>'], categories=<<['a', 'b']|['b', 'a']|['a', 'b', 'c']>>, ordered=<<True|False>>))
pd.date_range('2020', periods=3, freq='<<D|24h>>', tz=<<None|'UTC'|dt.UTC|'Europe/Paris'>>, name=<<None|'t'>>)
pd.date_range('2020', periods=3, tz=dt.timezone(dt.timedelta(hours=<<1|2>>)<<|, 'X'>>))
pd.DatetimeIndex(['2020-01-01', '2020-01-02', '2020-01-03'])
pd.DatetimeIndex(['2020-01-01'], dtype='datetime64[<<s|ms|us|ns>>]')
pd.Index([1, 2], name=<<None|'a'>>, dtype='<<i8|i4|f8|object>>')
<<pd.RangeIndex(3)|pd.Index([0, 1, 2])|pd.RangeIndex(0, 3, 1, name='r')|pd.RangeIndex(0, 6, 2)>>
pd.MultiIndex.from_tuples([(1, 'a')], names=<<None|['x', 'y']|['x', None]>>)
pd.interval_range(0, 2, closed='<<left|right|both>>')
pd.period_range('2020', periods=2, freq='<<D|M|Y>>')
<<same|flagged|noted>>(pd.DataFrame({'a': <<[1, 2]|[1., 2.]>>}, index=<<None|[0, 1]|['u', 'v']>>))
pd.DataFrame(<<{'a': [1], 'b': ['x']}|{'b': ['x'], 'a': [1]}>>)
noted(pd.<<DataFrame({'a': [1]})|Series([1])>>, unit='<<m|s>>')
pd.DataFrame({'a': [1]}).rename_axis(<<columns|index>>='c')
pd.DataFrame(<<|index=[1]|columns=['a']|columns=pd.Index(['a'], dtype=object)>>)
pd.Timestamp(0<<|, tz='UTC'|, tz='Europe/London'>>)<<|.as_unit('s')>>
pd.Timedelta(<<0|1>>)<<|.as_unit('s')>>
pd.<<NaT|NA>>
pd.Interval(0, 1, closed='<<left|both>>')
pd.offsets.<<Day()|Day(2)|MonthEnd()|MonthEnd(normalize=True)|BusinessDay()|CustomBusinessDay()>>
pd.offsets.CustomBusinessDay(holidays=['2020-01-0<<1|2>>'])
pd.arrays.SparseArray([0, 1], fill_value=<<0|1>>)
pd.Series([0, 1]).astype('Sparse[<<int|float>>]')
pd.array([1, 2], dtype='<<Int64|Int32|i8>>')
""",
        {
            "type": _type,
            "repr": repr,
            "axes": _axes,
            "cells": _cells,
            "columns": _columns,
            "flags": lambda frame: frame.flags.allows_duplicate_labels,
            "names": _named("unit", "tz", "freq", "closed", "fill_value", "n", "normalize", "holidays", "dtype"),
            "array": lambda series: (type(series.array), repr(series.array)),
            "categories": lambda series: (list(series.cat.categories), series.cat.ordered),
        },
        needs="pandas",
    ),
    Family(
        "polars",
        "import datetime as dt\nimport polars as pl",
        """
pl.Series('<<a|b>>', <<[]|[0, 1]|[0, None]>>, dtype=pl.<<Int8|Int64|UInt8|Float32|Float64>>)
pl.Series(<<[]|['x']|[None]>>, dtype=<<pl.String|pl.Categorical>>)
pl.Series(<<[]|['x']>>, dtype=pl.Enum(<<['x']|['x', 'y']|['y', 'x']>>))
pl.Series([dt.datetime(2020, 1, 1)], dtype=pl.Datetime('<<ms|us|ns>>', <<None|'UTC'|'Europe/Paris'>>))
pl.Series([[1, 2]], dtype=<<pl.List(pl.Int8)|pl.List(pl.Int64)|pl.Array(pl.Int64, 2)>>)
pl.Series([<<{'a': 1}|{'b': 1}|{'a': 1, 'b': 2}|{'b': 2, 'a': 1}>>])
pl.DataFrame({<<|'a': [1]|'b': [1]|'a': [1], 'b': [2]|'b': [2], 'a': [1]|'a': [1.0]|'a': ['1']>>})
pl.Series([None], dtype=pl.<<Decimal(10, 2)|Decimal(10, 3)|Decimal(11, 2)|Date|Time|Binary|Null>>)
pl.Series([None], dtype=pl.Duration('<<ms|us>>'))
pl.<<Int8()|Datetime('us')|Datetime('ms')|col('a')|col('b')|lit(1)|lit(2)>>
pl.col('a') + <<1|2|pl.col('b')>>
""",
        {
            "type": _type,
            "str": str,
            "schema": _named("schema", "dtype", "name"),
            "rows": lambda value: value.to_list() if hasattr(value, "to_list") else value.rows(),
            "categories": lambda series: series.dtype.categories.to_list(),
        },
        needs="polars",
    ),
    Family(
        "Arrow",
        """
import functools
import pyarrow as pa
field = functools.partial(pa.field, "a", pa.int64())
def table(field, metadata):
    return pa.table({"a": [1]}, pa.schema([field], metadata))
""",
        """
pa.array(<<[]|[0, 1]|[0, None]>>, pa.<<int8|int64|uint8|float32|float64|date32>>())
pa.array(<<[]|[0, 1]>>, pa.<<duration('s')|timestamp('s')|timestamp('s', 'UTC')|timestamp('ms')>>)
pa.array(<<[]|[0, 1]>>, pa.decimal128(5, <<1|2>>))
pa.array(['a'], pa.<<string|large_string|string_view>>())
pa.array(['a'], pa.dictionary(pa.<<int8|int32>>(), pa.string(), ordered=<<True|False>>))
pa.array([b'a'], pa.<<binary()|large_binary()|binary(1)>>)
pa.array([[1]], pa.<<list_(pa.int8())|list_(pa.int64())|large_list(pa.int8())|list_(pa.int8(), 1)>>)
pa.array([[1]], pa.list_(pa.field('<<item|x>>', pa.int8(), nullable=<<True|False>>)))
table(field(nullable=<<True|False>>, metadata=<<None|{'u': 'm'}|{'u': 's'}>>), <<None|{'x': 'y'}>>)
pa.scalar(<<1|1, pa.int8()|None, pa.int8()|'a'>>)
pa.<<int8()|int64()|field('a', pa.int8())|field('a', pa.int8(), False)|schema([])|schema([], {'a': 'b'})>>
pa.<<table|record_batch>>({<<'a': [1]|'b': [1]|'a': [1], 'b': [2]|'b': [2], 'a': [1]>>})
pa.<<chunked_array([[1]])|array([1])>>
pa.array([{'a': 1, 'b': 2}], pa.struct([pa.field('a', pa.int8(), <<True|False>>), pa.field('b', pa.int8())]))
""",
        {
            "type": _type,
            "kind": lambda value: str(value.type),
            "inside": _arrow_inside,
            "schema": _arrow_schema,
            "values": lambda value: value.to_pylist() if hasattr(value, "to_pylist") else value.as_py(),
            "str": str,
        },
        needs="pyarrow",
    ),
    Family(
        "xarray",
        "import numpy as np, pandas as pd, xarray as xr",
        """
xr.DataArray(<<[0, 1]|[0., 1.]>>, dims='<<x|y>>', name=<<None|'a'>>, attrs={<<|'u': 'm'|'u': 's'>>})
xr.DataArray([0, 1], dims='x', coords={<<|'x': [0, 1]|'x': [1, 2]|'x': [0., 1.]|'z': 3>>})
xr.DataArray([0, 1], dims='x', coords={'x': pd.date_range('202<<0|1>>', periods=2)})
xr.Dataset({<<|'a': ('x', [1])|'a': ('y', [1])|'b': ('x', [1])|'a': ('x', [1], {'u': 'm'})>>}, attrs=<<None|{'t': 1}>>)
xr.<<Variable('x', [1])|Variable('x', [1], {'u': 1})|IndexVariable('x', [1])|DataArray(1)|DataArray(np.int8(1))>>
xr.DataArray([[1]], dims=<<('a', 'b')|('b', 'a')>>)
""",
        {
            "type": _type,
            "facts": lambda value: value.to_dict(),
            "dtype": lambda value: (str(value.dtype), value.dims),
            "coordinates": lambda value: [(n, one.dtype, type(one.variable)) for n, one in value.coords.items()],
        },
        needs="xarray",
    ),
    Family(
        "sparse matrices",
        "import numpy as np, scipy.sparse as sp",
        """
sp.<<csr|csc|coo|lil|dok|dia|bsr>>_<<array|matrix>>(np.array(<<[[0, 1]]|[[1, 0]]|[[0], [1]]|[[0, 0]]>>, '<<i4|f8>>'))
sp.coo_array((np.array([1]), (np.array([1]),)), shape=(<<3|4>>,))
sp.csr_array((np.array(<<[0, 1]|[0, 2]>>), ([0, 0], [0, 1])), shape=(1, 2))
""",
        {
            "type": _type,
            "format": lambda matrix: (matrix.format, matrix.shape, str(matrix.dtype), matrix.nnz),
            "cells": lambda matrix: matrix.toarray().tobytes(),
        },
        needs="scipy",
    ),
    Family(
        "torch",
        """
import torch
def given(tensor, **parts):
    tensor.__dict__.update(parts)
    return tensor
def graded(gradient):
    tensor = torch.ones(2, requires_grad=True)
    tensor.grad = gradient
    return tensor
""",
        """
torch.zeros(<<0|2|(1, 2)|()>>, dtype=torch.<<bool|uint8|int8|int64|float16|bfloat16|float32|float64|complex64>>)
torch.zeros(<<0|2>>, dtype=torch.<<uint16|uint32|uint64|float8_e4m3fn|float8_e5m2|complex32>>)
given(torch.ones(2, requires_grad=<<True|False>>), <<|n=1|n=2>>)
graded(<<None|torch.ones(2)|torch.zeros(2)>>)
torch.ones(2, requires_grad=True) * 1
torch.nn.Parameter(torch.ones(2), requires_grad=<<True|False>>)
torch.tensor([[<<0|1>>, 1]])<<|.to_sparse()|.to_sparse_csr()>>
torch.tensor([0., <<0.|-0.|float('nan')>>])
torch.<<float32|float64|device('cpu')|device('cuda:0')|Size([1])|Size([2])>>
torch.tensor([1 <<+|->> 1j])
torch.conj(torch.tensor([1 + 1j]))
""",
        {
            "type": _type,
            "facts": _named("dtype", "shape", "requires_grad", "is_leaf", "layout", "device", "grad"),
            "values": lambda tensor: tensor.to_dense().detach().tolist(),
            "attributes": _attributes,
            "str": lambda value: "" if hasattr(value, "layout") else str(value),
        },
        needs="torch",
    ),
    Family(
        "rows of databases",
        """
import sqlite3
import sqlalchemy as sa
engine = sa.create_engine("sqlite://")
def row(columns):
    with engine.connect() as connection:
        return connection.execute(sa.text(f"select {columns}")).one()
""",
        """
row('<<1 as a|2 as a|1 as b|1.0 as a|1 as a, 2 as b|2 as b, 1 as a>>')<<|._mapping>>
<<(1,)|{'a': 1}>>
sa.<<Integer()|String(5)|String(6)|text('select 1')|text('select 2')>>
""",
        {
            "type": _type,
            "values": list,
            "names": lambda row: list(row._fields if hasattr(row, "_fields") else row.keys()),
            "repr": repr,
        },
        needs="sqlalchemy",
    ),
]
