"""Other HTTP stacks for the same job with the same fast path of LightGBM: 25 features in, a score out.

    python stacks.py STACK MODEL.txt PORT WORKERS

Imports of a stack are where it is used: they must not cost the others anything.
"""

import ctypes
import sys
from collections.abc import Callable, Mapping
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
from lightgbm.basic import _LIB

QUIET: Mapping[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False, "date_header": False}


class SingleRow:
    """As in `ml_assets.stages.trees`."""

    def __init__(self, booster: lgb.Booster) -> None:
        self.booster, self.handle = booster, ctypes.c_void_p()
        self.row, self.result, self.length = np.empty(booster.num_feature()), ctypes.c_double(), ctypes.c_int64()
        _LIB.LGBM_BoosterPredictForMatSingleRowFast.argtypes = [ctypes.c_void_p] * 4
        _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle, 0, 0, -1, 1, ctypes.c_int32(len(self.row)), b"num_threads=1", ctypes.byref(self.handle)
        )
        self.arguments = (self.handle, self.row.ctypes.data, ctypes.byref(self.length), ctypes.byref(self.result))

    def __call__(self, values: list[float]) -> float:
        self.row[:] = values
        _LIB.LGBM_BoosterPredictForMatSingleRowFast(*self.arguments)
        return self.result.value


Score = Callable[[dict[str, float | None]], dict[str, Any]]


def scorer(model: str) -> Score:
    booster = lgb.Booster(model_file=model)
    names, predict = booster.feature_name(), SingleRow(booster)

    def score(features: dict[str, float | None]) -> dict[str, Any]:
        found = predict([float("nan") if (value := features[name]) is None else value for name in names])
        return {"score": found, "alert": found >= 0.1, "threshold": 0.1, "model_version": "2018-05-09-0123456789ab"}

    return score


class Given(msgspec.Struct):
    features: dict[str, float | None]


decode, encode = msgspec.json.Decoder(Given).decode, msgspec.json.Encoder().encode


def fastapi(score: Score, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    app = FastAPI()

    class Request(BaseModel):
        features: dict[str, float | None]

    class Answer(BaseModel):
        score: float
        alert: bool
        threshold: float
        model_version: str

    @app.post("/")
    async def answer(request: Request) -> Answer:
        return Answer(**score(request.features))

    uvicorn.run(app, port=port, **QUIET)


def starlette(score: Score, port: int) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def answer(request: Request) -> Response:
        return Response(encode(score(decode(await request.body()).features)), media_type="application/json")

    uvicorn.run(Starlette(routes=[Route("/", answer, methods=["POST"])]), port=port, **QUIET)


def in_litestar(score: Score) -> Any:
    from litestar import Litestar, post

    @post("/", status_code=200, sync_to_thread=False)
    def answer(data: Given) -> dict[str, Any]:
        return score(data.features)

    return Litestar([answer])


def litestar(score: Score, port: int) -> None:
    import uvicorn

    uvicorn.run(in_litestar(score), port=port, **QUIET)


def litestar_granian(score: Score, port: int) -> None:
    on_granian(in_litestar(score), port)


def on_granian(app: Any, port: int) -> None:
    import asyncio

    import uvloop
    from granian.constants import Interfaces
    from granian.server.embed import Server

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Server(app, port=port, interface=Interfaces.ASGI).serve())


def robyn(score: Score, port: int) -> None:
    from robyn import Request, Response, Robyn

    app = Robyn(__file__)

    @app.post("/")
    async def answer(request: Request) -> Response:
        body = encode(score(decode(request.body).features)).decode()
        return Response(status_code=200, headers={"content-type": "application/json"}, description=body)

    app.start(host="127.0.0.1", port=port)


def plain_asgi(score: Score) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": message["type"] + ".complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        found = encode(score(decode(body).features))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(found)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": found})

    return app


def plain(score: Score, port: int) -> None:
    import uvicorn

    uvicorn.run(plain_asgi(score), port=port, **QUIET)


def plain_granian(score: Score, port: int) -> None:
    on_granian(plain_asgi(score), port)


STACKS = (fastapi, starlette, litestar, litestar_granian, robyn, plain, plain_granian)

if __name__ == "__main__":
    name, model, port, _workers = sys.argv[1:]
    sys.argv[1:] = []  # robyn reads what is left
    {stack.__name__: stack for stack in STACKS}[name](scorer(model), int(port))
