"""An API with one route, guarded in three lines. Run by run.py, three times."""

import os
from typing import Annotated

from fastapi import FastAPI, Security

from authwright.guard.fastapi import Guard, Principal

guard = Guard(issuer=os.environ["ISSUER"], audience=os.environ["ISSUER"])
Caller = Annotated[Principal, Security(guard, scopes=["predict"])]

app = FastAPI()


@app.get("/predict")
async def predict(caller: Caller) -> dict[str, str | None]:
    return {"for": caller.username}
