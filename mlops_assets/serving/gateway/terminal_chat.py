"""A conversation with the gateway in the terminal; the answer is printed as it comes."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
import typer

from mlops_assets.artifacts import LineageError

CONNECT_S, READ_S = 5, 120
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Conversation:
    """What was said so far, and whom it was said to."""

    def __init__(self, url: str, key: str, model: str | None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._session = requests.Session()
        # A proxy is for addresses beyond this machine: it would see the key.
        self._session.trust_env = urlsplit(self._url).hostname not in LOOPBACK
        self._headers = {"Authorization": f"Bearer {key}"}
        self._model = model
        self._messages: list[dict[str, str]] = []

    def ask(self, text: str) -> None:
        """Print the answer. Raises LineageError when there is none."""
        self._messages.append({"role": "user", "content": text})
        try:
            said = self._print_answer()
        except LineageError:
            self._messages.pop()
            raise
        self._messages.append({"role": "assistant", "content": said})

    def talk(self) -> None:
        """Ask what is typed until the end of the input, or Ctrl-C."""
        typer.echo("Ctrl-D ends the conversation.", err=True)
        while True:
            try:
                text = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                typer.echo("", err=True)
                return
            try:
                if text:
                    self.ask(text)
            except LineageError as error:
                typer.secho(f"Error: {error}", fg="red", err=True)

    def _print_answer(self) -> str:
        body = {"model": self._model or self._served(), "messages": self._messages, "stream": True}
        said = []
        for data in self._events(body):
            if "error" in data:
                typer.echo("")
                raise LineageError(
                    f"The answer broke off: {data['error']['message']}", "Ask again."
                )
            for choice in data["choices"]:
                part = choice["delta"].get("content") or ""
                said.append(part)
                typer.echo(_shown(part), nl=False)
        typer.echo("")
        return "".join(said)

    def _served(self) -> str:
        with self._request("GET", "/v1/models") as answer:
            self._model = str(answer.json()["data"][0]["id"])
        return self._model

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._request("POST", "/v1/chat/completions", json=body, stream=True) as answer:
            try:
                for line in answer.iter_lines():
                    if line.startswith(b"data: ") and line != b"data: [DONE]":
                        yield json.loads(line[6:])
            except requests.RequestException as error:
                raise LineageError(
                    f"The connection broke ({type(error).__name__}).", "Ask again."
                ) from None

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            answer = self._session.request(
                method,
                self._url + path,
                headers=self._headers,
                timeout=(CONNECT_S, READ_S),
                **options,
            )
        except requests.RequestException as error:
            raise LineageError(
                f"The gateway at {self._url} cannot be reached ({type(error).__name__}).",
                "Start it with `mlops serve`, or give its address by --url.",
            ) from None
        if answer.status_code != 200:
            raise LineageError(_problem(answer), "`mlops chat --help` tells of key and address.")
        return answer


def _shown(text: str) -> str:
    """The text without what a terminal would obey."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def _problem(answer: requests.Response) -> str:
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = "it sent no reason"
    return f"The gateway answered {answer.status_code}: {message}"
