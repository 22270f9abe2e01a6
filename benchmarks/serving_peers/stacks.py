"""Other HTTP stacks for the same job with the same fast path of LightGBM: 25 features in, a score out.

python stacks.py NAME MODEL.txt PORT INPUTS
"""

import ctypes
import sys
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
from lightgbm.basic import _LIB

NAME, MODEL, PORT, NAMES = sys.argv[1:] if len(sys.argv) > 4 else ("", "", "0", "")


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


def scorer() -> Any:
    inputs, predict = NAMES.split(","), SingleRow(lgb.Booster(model_file=MODEL))

    def score(features: dict[str, float | None]) -> dict[str, Any]:
        found = predict([float("nan") if (value := features[name]) is None else value for name in inputs])
        return {"score": found, "alert": found >= 0.1, "threshold": 0.1, "model_version": "2018-05-09-0123456789ab"}

    return score


class Given(msgspec.Struct):
    features: dict[str, float | None]


def fastapi_on_uvicorn() -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    app, score = FastAPI(), scorer()

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

    uvicorn.run(app, port=int(PORT), log_level="warning", access_log=False)


def starlette_on_uvicorn() -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    decode, encode, score = msgspec.json.Decoder(Given).decode, msgspec.json.Encoder().encode, scorer()

    async def answer(request: Request) -> Response:
        return Response(encode(score(decode(await request.body()).features)), media_type="application/json")

    uvicorn.run(Starlette(routes=[Route("/", answer, methods=["POST"])]), port=int(PORT), log_level="warning", access_log=False)


def litestar_app() -> Any:
    from litestar import Litestar, post

    score = scorer()

    @post("/", status_code=200, sync_to_thread=False)
    def answer(data: Given) -> dict[str, Any]:
        return score(data.features)

    return Litestar([answer], openapi_config=None)


def litestar_on_uvicorn() -> None:
    import uvicorn

    uvicorn.run(litestar_app(), port=int(PORT), log_level="warning", access_log=False)


def litestar_on_granian() -> None:
    import asyncio

    from granian.constants import Interfaces
    from granian.server.embed import Server

    asyncio.run(Server(litestar_app(), port=int(PORT), interface=Interfaces.ASGI).serve())


def robyn() -> None:
    from robyn import Request, Response, Robyn

    app, decode, encode, score = Robyn(__file__), msgspec.json.Decoder(Given).decode, msgspec.json.Encoder().encode, scorer()

    @app.post("/")
    async def answer(request: Request) -> Response:
        body = encode(score(decode(request.body).features)).decode()
        return Response(status_code=200, headers={"content-type": "application/json"}, description=body)

    app.start(host="127.0.0.1", port=int(PORT))


def plain_on_uvicorn() -> None:
    import uvicorn

    decode, encode, score = msgspec.json.Decoder(Given).decode, msgspec.json.Encoder().encode, scorer()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        found = encode(score(decode(body).features))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(found)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": found})

    uvicorn.run(app, port=int(PORT), log_level="warning", access_log=False, lifespan="off", server_header=False, date_header=False)


STACKS = {
    "FastAPI, uvicorn": fastapi_on_uvicorn,
    "Starlette, msgspec, uvicorn": starlette_on_uvicorn,
    "Litestar, msgspec, uvicorn": litestar_on_uvicorn,
    "Litestar, msgspec, granian": litestar_on_granian,
    "robyn, msgspec": robyn,
    "plain ASGI, msgspec, uvicorn": plain_on_uvicorn,
}

if __name__ == "__main__":
    STACKS[NAME]()
