"""`drift health`: asks a running worker's `/readyz`, for container checks."""

import urllib.error
import urllib.request
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from stream.cli.options import ConfigFile, new_app, settings
from stream.worker.ends import Stopped

TIMEOUT_SECONDS: Final = 5.0
EXIT_CHECK_FAILED: Final = 1
_ANSWER_BYTES_MAX: Final = 4096
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - read, not bound to

app = new_app()


@app.command()
def health(
    file: ConfigFile = None,
    url: Annotated[str | None, typer.Option("--url", help="Else http://HOST:PORT/readyz of section [http].")] = None,
) -> None:
    """Ask a running worker whether it is ready. Exit code 0 if it is, else 1 with its reason."""
    answer = ask(url or _own_url(file))
    typer.echo(answer)


def ask(url: str) -> str:
    """What a ready worker answers. Raises `Stopped`, exit code 1, if it does not answer, or not with success."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise typer.BadParameter(f"{url}: expected an address that starts with http:// or https://", param_hint="--url")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - http or https, see above
            return _text(response.read(_ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        with error:
            raise Stopped(
                EXIT_CHECK_FAILED, "unready", f"{url}: {error.code} {_text(error.read(_ANSWER_BYTES_MAX))}"
            ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Stopped(EXIT_CHECK_FAILED, "unready", f"{url}: no answer ({reason}); is the worker running?") from None


def _own_url(file: ConfigFile) -> str:
    http = settings(file).config.http
    host = _EVERYWHERE.get(http.host, http.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{http.port}/readyz"


def _text(answer: bytes) -> str:
    return answer.decode(errors="replace").strip()
