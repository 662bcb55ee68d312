"""Fifty ordinary functions, as people write them: with a database, a client, a template, a model, a configuration.

Each source defines `f`. Those whose key rightly is incomplete are named in `INCOMPLETE`, with a word that the line must hold.
"""
# ruff: noqa: E501 - a table of sources reads better wide

from __future__ import annotations

from typing import Final

#: What cannot be seen, and can decide the result.
INCOMPLETE: Final = {
    "an open connection in a global": "sqlite3.Connection",
    "a client that somebody wrote in C": "socket",
    "a plug-in by a computed name": "import_module",
    "a formula from a file": "eval",
}

# fmt: off
ORDINARY: Final = {
    # databases
    "an engine in a global": "import sqlalchemy as sa\nengine = sa.create_engine('sqlite:///shop.db')\ndef f(day):\n    with engine.connect() as db: return db.execute(sa.text('select 1')).scalar()\n",
    "a session factory": "import sqlalchemy as sa\nfrom sqlalchemy.orm import sessionmaker\nengine = sa.create_engine('sqlite:///shop.db')\nSession = sessionmaker(engine)\ndef f(day):\n    with Session() as db: return db.execute(sa.text('select 1')).scalar()\n",
    "tables of sqlalchemy": "import sqlalchemy as sa\nmetadata = sa.MetaData()\norders = sa.Table('orders', metadata, sa.Column('id', sa.Integer, primary_key=True), sa.Column('total', sa.Float, server_default='0'))\ndef f(url):\n    with sa.create_engine(url).begin() as db:\n        metadata.create_all(db)\n        return db.execute(sa.select(sa.func.sum(orders.c.total))).scalar()\n",
    "a declarative model": "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, Session\nimport sqlalchemy as sa\nclass Base(DeclarativeBase): pass\nclass User(Base):\n    __tablename__ = 'users'\n    id: Mapped[int] = mapped_column(primary_key=True)\n    name: Mapped[str]\ndef f(url):\n    with Session(sa.create_engine(url)) as db: return [u.name for u in db.scalars(sa.select(User))]\n",
    "a statement in a global": "import sqlalchemy as sa\nQUERY = sa.text('select total from orders where day = :day')\ndef f(url, day):\n    with sa.create_engine(url).connect() as db: return db.execute(QUERY, {'day': day}).all()\n",
    "sqlite by its path": "import sqlite3\ndef f(path):\n    with sqlite3.connect(path) as db: return db.execute('select 1').fetchall()\n",
    "an open connection in a global": "import sqlite3\ndb = sqlite3.connect(':memory:')\ndef f(day): return db.execute('select ?', (day,)).fetchone()\n",
    "a connection for each thread": "import sqlite3, threading\n_local = threading.local()\ndef connection():\n    if not hasattr(_local, 'db'): _local.db = sqlite3.connect('shop.db')\n    return _local.db\ndef f(day): return connection().execute('select ?', (day,)).fetchone()\n",
    "read_sql": "import pandas as pd, sqlalchemy as sa\nURL = 'sqlite://'\ndef f(day): return pd.read_sql('select 1 as a', sa.create_engine(URL)).a.tolist()\n",
    "a pool behind a lock": "import threading, queue\n_lock = threading.Lock()\nSIZE = 4\ndef f(day):\n    with _lock: return day * SIZE\n",
    # HTTP
    "requests": "import requests\nBASE = 'https://example.org'\ndef f(day):\n    answer = requests.get(f'{BASE}/{day}', timeout=5)\n    answer.raise_for_status()\n    return answer.json()\n",
    "a session of requests": "import requests\nsession = requests.Session()\nsession.headers['User-Agent'] = 'shop'\ndef f(day): return session.get(f'https://example.org/{day}').json()\n",
    "httpx": "import httpx\ndef f(day):\n    with httpx.Client(base_url='https://example.org') as client: return client.get(f'/{day}').json()\n",
    "a client of httpx in a global": "import httpx\nclient = httpx.Client(base_url='https://example.org', headers={'a': 'b'}, timeout=5)\ndef f(day): return client.get(f'/{day}').json()\n",
    "an asynchronous client": "import httpx\nclient = httpx.AsyncClient(base_url='https://example.org')\nasync def f(day): return (await client.get(f'/{day}')).json()\n",
    "urllib": "import urllib.request, json\ndef f(url):\n    with urllib.request.urlopen(url) as answer: return json.load(answer)\n",
    "a client that somebody wrote in C": "import socket\nclient = socket.socket()\ndef f(day):\n    client.send(day.encode())\n    return client.recv(100)\n",
    "a client class": "class Client:\n    def __init__(self, url, retries=3): self.url, self.retries = url, retries\n    def get(self, day): return self.url + day\nclient = Client('https://example.org')\ndef f(day): return client.get(day)\n",
    "retries": "import tenacity, requests\n@tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(1))\ndef get(day): return requests.get(day).text\ndef f(day): return get(day)\n",
    "a pool of threads": "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(4)\ndef one(n): return n + 1\ndef f(ns): return list(pool.map(one, ns))\n",
    "a token from the environment": "import os, requests\ndef f(day): return requests.get(day, headers={'token': os.environ['TOKEN']}).text\n",
    # templates and text
    "a template": "import jinja2\nTEMPLATE = jinja2.Template('Hello {{ name }}')\ndef f(name): return TEMPLATE.render(name=name)\n",
    "an environment of templates": "import jinja2\nENV = jinja2.Environment(loader=jinja2.DictLoader({'a': 'Hello {{ name }}'}), autoescape=True)\nENV.filters['shout'] = lambda text: text.upper()\ndef f(name): return ENV.get_template('a').render(name=name)\n",
    "string.Template": "from string import Template\nGREETING = Template('Hello $name')\ndef f(name): return GREETING.substitute(name=name)\n",
    "patterns": "import re\nWORD = re.compile(r'\\w+')\ndef f(text): return [m.group() for m in WORD.finditer(text)]\n",
    "a logger": "import logging\nlog = logging.getLogger(__name__)\nhandler = logging.StreamHandler()\ndef f(n):\n    log.info('got %s', n)\n    handler.flush()\n    return n\n",
    "tokens by a table": "HANDLERS = {'a': str.upper, 'b': lambda text: text[::-1]}\ndef f(kind, text): return HANDLERS[kind](text)\n",
    "markup": "import html, textwrap\ndef f(text): return textwrap.fill(html.escape(text), 72)\n",
    # models
    "a model of numpy": "import numpy as np\nWEIGHTS = np.arange(12.0).reshape(3, 4)\ndef f(x): return (WEIGHTS @ np.asarray(x)).tolist()\n",
    "a fitted pipeline": "import numpy as np\nclass Scale:\n    def fit(self, x):\n        self.mean_ = np.mean(x)\n        return self\n    def transform(self, x): return x - self.mean_\nMODEL = Scale().fit([1, 2, 3])\ndef f(x): return MODEL.transform(x)\n",
    "a model from a pickle": "import pickle\ndef f(path, x):\n    with open(path, 'rb') as file: model = pickle.load(file)\n    return model.predict(x)\n",
    "a model from joblib": "import joblib\ndef f(path, x): return joblib.load(path).predict(x)\n",
    "a model kept by functools": "import functools, joblib\n@functools.lru_cache(maxsize=1)\ndef model(path): return joblib.load(path)\ndef f(path, x): return model(path).predict(x)\n",
    "a strategy by its name": "class Model:\n    def predict_fast(self, x): return x\n    def predict_good(self, x): return x + 1\n    def predict(self, how, x): return getattr(self, f'predict_{how}')(x)\ndef f(how, x): return Model().predict(how, x)\n",
    "an aggregation by its name": "import pandas as pd\ndef f(table, how): return getattr(table.groupby('a'), how)()\n",
    "a frame": "import pandas as pd\nRATES = pd.DataFrame({'a': [1, 2]}, index=pd.date_range('2024', periods=2))\ndef f(day): return RATES.loc[day, 'a']\n",
    "polars": "import polars as pl\nRATES = pl.DataFrame({'a': [1, 2]})\ndef f(n): return RATES.filter(pl.col('a') > n).height\n",
    "an optional library": "def f(text):\n    try:\n        import orjson_is_not_there as json\n    except ImportError:\n        import json\n    return json.loads(text)\n",
    "a plug-in by a computed name": "import importlib\ndef f(name, x): return importlib.import_module('plugins.' + name).run(x)\n",
    "a formula from a file": "def f(path, x):\n    with open(path) as file: return eval(file.read(), {'x': x})\n",
    # configuration
    "a dataclass of settings": "from dataclasses import dataclass, field\n@dataclass(frozen=True)\nclass Settings:\n    rate: float = 0.2\n    tags: tuple = ('a',)\n    more: dict = field(default_factory=dict)\nSETTINGS = Settings()\ndef f(x): return x * SETTINGS.rate\n",
    "settings of pydantic": "import pydantic\nclass Settings(pydantic.BaseModel):\n    rate: float = 0.2\n    url: pydantic.HttpUrl = pydantic.HttpUrl('https://example.org')\nSETTINGS = Settings()\ndef f(x): return x * SETTINGS.rate\n",
    "an enum": "import enum\nclass Mode(enum.StrEnum):\n    FAST = 'fast'\n    GOOD = 'good'\ndef f(x, mode=Mode.FAST): return x if mode is Mode.FAST else x + 1\n",
    "a parser of arguments": "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--rate', type=float, default=0.2)\ndef f(words): return vars(parser.parse_args(words))\n",
    "configparser": "import configparser\nconfig = configparser.ConfigParser()\nconfig.read_string('[a]\\nrate = 0.2\\n')\ndef f(x): return x * config.getfloat('a', 'rate')\n",
    "toml beside the module": "import pathlib, tomllib\nHERE = pathlib.Path(__file__).parent\ndef f(x): return tomllib.loads((HERE / 'settings.toml').read_text())['rate'] * x\n",
    "a context variable": "import contextvars\nUSER = contextvars.ContextVar('USER', default='nobody')\ndef f(x): return USER.get(), x\n",
    "a clock": "import datetime as dt, zoneinfo\nZONE = zoneinfo.ZoneInfo('Europe/Berlin')\ndef f(day): return dt.datetime.combine(day, dt.time(), ZONE)\n",
    "a semaphore": "import asyncio\nlimit = asyncio.Semaphore(4)\nasync def f(n):\n    async with limit: return n + 1\n",
    "a memo of one's own": "import threading\n_cache, _lock = {}, threading.RLock()\ndef load(path):\n    with _lock:\n        if path not in _cache: _cache[path] = path.upper()\n    return _cache[path]\ndef f(path): return load(path)\n",
}
# fmt: on
