"""Say in one line what the Hugging Face hub refused, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from surgeon.errors import HubError

LOG_IN = "hf auth login keeps one for this machine; HF_TOKEN=… gives one to this command"
OFFLINE = "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"
TOKENS = "https://huggingface.co/settings/tokens makes one that may write"
HTTP_ERROR: type[BaseException] = HfHubHTTPError.__mro__[1]
"""The class of errors of the library for HTTP that huggingface_hub uses; a connection that fails is one too."""


@contextmanager
def hub_errors(doing: str, repository: str) -> Iterator[None]:
    """Turn whatever goes wrong with the hub into one :class:`HubError`.

    Args:
        doing: What is being done, as in: making the repository.
        repository: ``ORG/NAME``.
    """
    try:
        yield
    except HFValidationError as error:
        raise HubError(_first_line(error), where=repository, hint="a repository is ORG/NAME") from error
    except LocalTokenNotFoundError as error:
        raise HubError("there is no token of the Hugging Face hub", where=repository, hint=LOG_IN) from error
    except OfflineModeIsEnabled as error:
        raise HubError("huggingface_hub is set to work offline", where=repository, hint=OFFLINE) from error
    except HfHubHTTPError as error:
        raise _refused(error, doing, repository) from error
    except (HTTP_ERROR, ConnectionError, TimeoutError) as error:
        raise HubError(
            f"the Hugging Face hub cannot be reached ({doing}): {_first_line(error)}",
            where=repository,
            hint="check the connection, HF_ENDPOINT and HTTPS_PROXY, and push again: what arrived is not sent twice",
        ) from error
    except (ValueError, OSError) as error:  # an answer that is not what the hub says, or a file that went away
        raise HubError(f"{doing} failed: {_first_line(error)}", where=repository, hint="push again") from error


def _refused(error: HfHubHTTPError, doing: str, repository: str) -> HubError:
    response = getattr(error, "response", None)
    code = response.status_code if response is not None else None
    server_message = (getattr(error, "server_message", None) or "").strip().splitlines()
    reason = f": {server_message[0]}" if server_message else ""
    by_code = {
        401: ("the hub does not accept the token", f"{LOG_IN}; {TOKENS}"),
        402: ("the hub asks for a payment", "see the billing settings of the account"),
        403: (f"the token may not write to {repository}", f"{TOKENS}; or name a place of your own: ORG/NAME"),
        404: ("the hub has no such place, or the token may not see it", "check ORG/NAME and --revision"),
        409: ("something else has changed the repository meanwhile", "push again"),
        413: ("the hub finds a file too large", "surgeon writes shards of 5 GB: write the artifact again as a folder"),
        429: ("the hub has had too many requests", "wait some minutes and push again"),
    }
    message, hint = by_code.get(
        code or 0, ("the hub failed" if (code or 0) >= 500 else "the hub refuses", "push again")
    )
    number = f" ({code})" if code is not None else ""
    return HubError(f"{message}{number}, {doing}{reason}", where=repository, hint=hint)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
