"""An agent that reads its user's session from a header and writes a change back with another.

    pip install fastapi uvicorn http-sf
    uvicorn --app-dir examples/python --port 9000 agent:app
"""

import http_sf
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

app = FastAPI()


class Message(BaseModel):
    text: str


def session_context(request: Request) -> dict:
    """The fields that this agent may read; empty without a session.

    A value that is an `http_sf.Token` is a handle: it stands for a value that is kept from agents.
    """
    lines = request.headers.getlist("cloakroom-context")
    members = http_sf.parse(", ".join(lines).encode(), tltype="dictionary") if lines else {}
    return {field: plain(value) for field, (value, _parameters) in members.items()}


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item, _parameters in value]
    return str(value) if isinstance(value, http_sf.DisplayString) else value


def write_back(response: Response, changes: dict) -> None:
    """Asks for fields to be set, all or none. Lists are written `([(item, {}), ...], {})`."""
    response.headers["Cloakroom-Set"] = http_sf.ser(changes)


@app.post("/chat")
def chat(message: Message, request: Request, response: Response):
    context = session_context(request)
    step = context.get("step", 0) + 1
    project = message.text.removeprefix("open ") if message.text.startswith("open ") else None
    write_back(response, {"step": step} | ({"current_project_id": project} if project else {}))
    # Two requests at once must not count as one: whoever finds the session changed is refused.
    response.headers["Cloakroom-If-Match"] = request.headers["cloakroom-etag"]
    return {
        "you_are": request.headers.get("x-user-id"),
        "email": f"{context.get('email')}",
        "project": project or context.get("current_project_id"),
        "theme": context.get("ui_preferences.theme"),
        "step": step,
    }
