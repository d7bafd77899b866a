"""A server with large attachments, which is also the provider to which they are sent.

python -m dev.floods.attachments <port>
"""

import sys

import uvicorn
from fastapi import FastAPI, Request, Response

_FILE = bytes(10_000_000)

app = FastAPI()


@app.get("/file")
async def file() -> Response:
    return Response(_FILE, media_type="application/pdf")


@app.get("/stats")
async def stats() -> Response:
    return Response()


@app.post("/v3/mail/send")
async def send(request: Request) -> Response:
    async for _ in request.stream():
        pass
    return Response(status_code=202, headers={"X-Message-Id": "1"})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
