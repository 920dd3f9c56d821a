"""A Postman collection from the OpenAPI document: flows that are tried, and every request (Collection Format 2.1.0)."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
_FLOWER: Final = {"sepal_length": "6.3", "sepal_width": "3.3", "petal_length": "6.0", "petal_width": "2.5"}
_BEARER: Final = "access_token"


@dataclass(frozen=True)
class Step:
    """One request of a flow: the *operation* of the document, what it sends, what must come back, what is *kept* of it.

    *body* is JSON unless *form*; *bearer* names the variable with the bearer token; *checks* are lines of JavaScript in
    which `answer` is the parsed body.
    """

    title: str
    operation: str
    status: int = 200
    body: dict[str, Any] | None = None
    form: bool = False
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    bearer: str = ""
    kept: dict[str, str] = field(default_factory=dict)
    checks: tuple[str, ...] = ()


def _logs_in(*, prefix: str = "") -> dict[str, str]:
    return {f"{prefix}access_token": "access_token", f"{prefix}refresh_token": "refresh_token"}


# Each flow, the variable without which it is skipped, and its steps.
_FLOWS: Final[tuple[tuple[str, str, tuple[Step, ...]], ...]] = (
    (
        "A person: register, log in, predict, refresh, log out",
        "",
        (
            Step("Register", "register", 201, {"username": "{{username}}", "password": "{{password}}"}),
            Step(
                "Log in",
                "login",
                body={"username": "{{username}}", "password": "{{password}}"},
                form=True,
                kept=_logs_in(),
                checks=("pm.expect(answer.token_type).to.eql('bearer')", "pm.expect(answer.expires_in).to.be.above(0)"),
            ),
            Step("Who am I", "me", bearer=_BEARER, checks=("pm.expect(answer.plan).to.be.a('string')",)),
            Step(
                "Predict the example", "predict", bearer=_BEARER, checks=("pm.expect(answer.class).to.be.a('string')",)
            ),
            Step(
                "Predict a flower of your own",
                "predict",
                bearer=_BEARER,
                query=_FLOWER,
                checks=("pm.expect(answer.class).to.eql('virginica')",),
            ),
            Step(
                "Refresh",
                "refresh_token",
                body={"refresh_token": "{{refresh_token}}"},
                kept=_logs_in(),
                checks=("pm.expect(answer.refresh_token).not.to.eql(pm.collectionVariables.get('refresh_token'))",),
            ),
            Step("Secure data", "secure_data", bearer=_BEARER),
            Step("Log out", "logout", bearer=_BEARER),
            Step("The access token is refused", "secure_data", 401, bearer=_BEARER),
            Step(
                "The refresh token is refused",
                "refresh_token",
                400,
                {"refresh_token": "{{refresh_token}}"},
                checks=("pm.expect(answer.error).to.eql('invalid_grant')",),
            ),
        ),
    ),
    (
        "A program: log in with a client key, refresh, secure data, log out",
        "client_key",
        (
            Step(
                "Log in with the key",
                "login",
                body={"client_key": "{{client_key}}"},
                kept=_logs_in(prefix="client_"),
                checks=("pm.expect(answer.user_id).to.match(/^cli_/)",),
            ),
            Step("Who am I, as a client", "me", bearer="client_access_token"),
            Step(
                "Refresh the client's login",
                "refresh_token",
                body={"refresh_token": "{{client_refresh_token}}"},
                kept=_logs_in(prefix="client_"),
            ),
            Step("Secure data for the client", "secure_data", bearer="client_access_token"),
            Step("Log the client out", "logout", bearer="client_access_token"),
            Step("The client's access token is refused", "secure_data", 401, bearer="client_access_token"),
        ),
    ),
    (
        "An administrator: create, find, change and delete a user",
        "admin_username",
        (
            Step(
                "Log in as administrator",
                "login",
                body={"username": "{{admin_username}}", "password": "{{admin_password}}"},
                kept={"admin_access_token": "access_token"},
                checks=("pm.expect(answer.scope).to.include('admin')",),
            ),
            Step(
                "Create a user",
                "create_user",
                201,
                {"username": "{{username}}-made", "password": "{{password}}"},
                bearer="admin_access_token",
                kept={"made_id": "id"},
            ),
            Step(
                "Find users",
                "users",
                bearer="admin_access_token",
                query={"search": "{{username}}-made"},
                checks=("pm.expect(answer.users[0].id).to.eql(pm.collectionVariables.get('made_id'))",),
            ),
            Step("Show the user", "user", bearer="admin_access_token", path={"username": "{{username}}-made"}),
            Step(
                "Change the user's plan",
                "put_user",
                body={"plan": "premium"},
                path={"username": "{{username}}-made"},
                bearer="admin_access_token",
                checks=("pm.expect(answer.plan).to.eql('premium')",),
            ),
            Step("Delete the user", "delete_user", bearer="admin_access_token", path={"username": "{{username}}-made"}),
            Step("The user is gone", "user", 404, bearer="admin_access_token", path={"username": "{{username}}-made"}),
            Step("Log the administrator out", "logout", bearer="admin_access_token"),
        ),
    ),
)
# A name and a password that nobody has, unless the environment names some; the password is good for production, too.
_FRESH: Final = (
    "if (!pm.variables.get('username')) {",
    "  const fresh = pm.variables.replaceIn('{{$randomUUID}}');",
    "  pm.collectionVariables.set('username', 'postman-' + fresh);",
    "  pm.collectionVariables.set('password', 'a passphrase ' + fresh);",
    "}",
)


def collection(document: dict[str, Any], *, base_url: str) -> dict[str, Any]:
    """The collection for the OpenAPI *document* of the server at *base_url*: flows first, then all requests by tag."""
    operations = {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    flows = [_flow(title, needed, steps, operations) for title, needed, steps in _FLOWS]
    tags: dict[str, list[dict[str, Any]]] = {}
    for method, path, operation in operations.values():
        tags.setdefault(operation["tags"][0], []).append(_reference(method, path, operation))
    every = [{"name": tag, "item": items} for tag, items in tags.items()]
    return {
        "info": {
            "name": document["info"]["title"],
            "description": "Written by `authwright postman`. The flows keep what they need in collection variables. "
            "`client_key` (authwright clients create) and `admin_username`, `admin_password` (authwright users create "
            "--admin) are set in the environment; flows without them are skipped.",
            "schema": SCHEMA,
        },
        "item": [*flows, {"name": "Every request", "item": every}],
        "event": [],
        "variable": [{"key": "base_url", "value": base_url}],
    }


def environment(*, base_url: str) -> dict[str, Any]:
    """The environment that the collection is run in; empty values leave flows out."""
    names = {"client_key": "secret", "admin_username": "default", "admin_password": "secret"}
    values = [{"key": "base_url", "value": base_url, "type": "default", "enabled": True}]
    values += [{"key": name, "value": "", "type": kind, "enabled": True} for name, kind in names.items()]
    return {"name": f"Authwright at {base_url}", "values": values, "_postman_variable_scope": "environment"}


def _flow(title: str, needed: str, steps: tuple[Step, ...], operations: dict[str, Any]) -> dict[str, Any]:
    before = [f"if (!pm.variables.get('{needed}')) pm.execution.skipRequest();"] if needed else []
    return {
        "name": title,
        "item": [_step(step, *operations[step.operation]) for step in steps],
        "event": [_script("prerequest", [*before, *_FRESH])],
    }


def _step(step: Step, method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    if str(step.status) not in operation["responses"]:
        raise ValueError(f"{step.operation} does not document {step.status}")
    lines = [f"pm.test('{step.status}', () => pm.response.to.have.status({step.status}));"]
    if step.checks or step.kept:
        lines.append("const answer = pm.response.json();")
    lines += [f"pm.test('answer {number}', () => {check});" for number, check in enumerate(step.checks, 1)]
    lines += [f"pm.collectionVariables.set('{name}', answer['{member}']);" for name, member in step.kept.items()]
    request = _request(method, path, path_values=step.path, query=step.query, bearer=step.bearer)
    if step.body is not None:
        request |= _body(step.body, form=step.form)
    return {"name": step.title, "request": request, "event": [_script("test", lines)], "response": []}


def _reference(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """A request as documented, with examples; whatever it answers has to be documented, too."""
    parameters = operation.get("parameters", [])
    values = {each["name"]: _example(each["schema"]) for each in parameters if each["in"] == "path"}
    request = _request(method, path, path_values=values, bearer=_BEARER if operation.get("security") else "")
    optional = [each["name"] for each in parameters if each["in"] == "query"]
    request["url"]["query"] = [{"key": name, "value": "", "disabled": True} for name in optional]
    request["description"] = operation.get("description", operation.get("summary", ""))
    content = operation.get("requestBody", {}).get("content", {})
    for media_type, described in content.items():
        request |= _body(_example(described["schema"]), form=media_type != "application/json")
        break
    documented = ", ".join(sorted(operation["responses"]))
    lines = [f"pm.test('documented', () => pm.expect(pm.response.code).to.be.oneOf([{documented}]));"]
    name = operation.get("summary", operation["operationId"])
    return {"name": name, "request": request, "event": [_script("test", lines)], "response": []}


def _request(
    method: str, path: str, *, path_values: dict[str, str], query: dict[str, str] | None = None, bearer: str = ""
) -> dict[str, Any]:
    segments = [f":{part[1:-1]}" if part.startswith("{") else part for part in path.strip("/").split("/")]
    query = query or {}
    search = "?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else ""
    auth = {"type": "bearer", "bearer": [{"key": "token", "value": f"{{{{{bearer}}}}}", "type": "string"}]}
    return {
        "method": method,
        "header": [],
        "auth": auth if bearer else {"type": "noauth"},
        "url": {
            "raw": "{{base_url}}/" + "/".join(segments) + search,
            "host": ["{{base_url}}"],
            "path": segments,
            "query": [{"key": name, "value": value} for name, value in query.items()],
            "variable": [{"key": name, "value": value} for name, value in path_values.items()],
        },
    }


def _body(values: dict[str, Any], *, form: bool) -> dict[str, Any]:
    if form:
        fields = [{"key": name, "value": str(value), "type": "text"} for name, value in values.items()]
        return {"body": {"mode": "urlencoded", "urlencoded": fields}}
    raw = json.dumps(values, indent=2, ensure_ascii=False)
    return {"body": {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}}


def _example(schema: dict[str, Any]) -> Any:
    """What the *schema* gives as an example, else the least that it takes."""
    if "examples" in schema:
        return schema["examples"][0]
    for word in ("oneOf", "anyOf"):
        if word in schema:
            return _example(schema[word][0])
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        shown = [name for name in properties if name in schema.get("required", ()) or "examples" in properties[name]]
        return {name: _example(properties[name]) for name in shown}
    if schema.get("type") == "array":
        return [_example(schema["items"])]
    if "enum" in schema:
        return schema["enum"][0]
    return {"integer": schema.get("minimum", 1), "boolean": True}.get(schema.get("type", ""), "...")


def _script(listen: str, lines: list[str]) -> dict[str, Any]:
    return {"listen": listen, "script": {"type": "text/javascript", "exec": lines}}
