"""The limit of the gateway: an endpoint that does nothing, served in the same way as the services.

python -m dev.bench.bare_endpoint <port>
"""

import sys

from fastapi import FastAPI
from pydantic import BaseModel, Field

from shared.service import serve

app = FastAPI()


class Sms(BaseModel):
    from_: str = Field(alias="from")
    to: str
    type: str
    body: str
    attachments: list[str] | None
    timestamp: str


class Accepted(BaseModel):
    to: str
    status: str


@app.post("/messages", status_code=202)
async def accept(sms: Sms) -> Accepted:
    return Accepted(to=sms.to, status="accepted")


@app.get("/readyz")
async def readyz() -> str:
    return "ready"


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(sys.argv[1]), program="bare")
