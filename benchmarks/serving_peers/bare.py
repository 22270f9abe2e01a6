"""The bare HTTP stack: plain ASGI on uvicorn as it comes, with the loop and the parser that this service uses, answers a constant.

python bare.py PORT WORKERS
"""

import sys
from typing import Any

import uvicorn

ANSWER = b'{"score":0.01234567890123456,"alert":false,"threshold":0.12345678901234567,"model_version":"2018-05-09-0123456789ab"}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())],
}
BODY = {"type": "http.response.body", "body": ANSWER}


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": message["type"] + ".complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(BODY)


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    uvicorn.run(
        "bare:application",
        port=port,
        workers=workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        backlog=4096,
    )
