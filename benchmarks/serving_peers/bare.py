"""The HTTP stack of this service alone: plain ASGI on uvicorn, started by the same call, answers a constant.

python bare.py PORT WORKERS
"""

import sys
from typing import Any

from ml_assets.serving import server

ANSWER = b'{"score":0.01234567890123456,"alert":false,"threshold":0.12345678901234567,"model_version":"2018-05-09-0123456789ab"}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())],
}
BODY = {"type": "http.response.body", "body": ANSWER}


def application() -> Any:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": message["type"] + ".complete"})
            return
        while (await receive()).get("more_body"):
            pass
        await send(START)
        await send(BODY)

    return answer


server.application = application

if __name__ == "__main__":
    port, workers = sys.argv[1:]
    server.serve(server.Settings(cases=(), root="", store="", port=int(port), workers=int(workers)))
