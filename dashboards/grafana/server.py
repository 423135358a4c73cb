"""A Grafana server, called through the package grafana-api. No other module imports that package.

    with connect("http://127.0.0.1:3000", token) as server:
        server.put_folder("fedscape", "fedscape")

It makes only calls that current Grafana still serves. Grafana 13 removed the numeric ids of data sources, so a data
source is found in the list and changed by its uid. The package has no method for that call but accepts any path.
Every `put_...` is idempotent and returns what it did. No message shows the token.

grafana-api sends its requests through the package requests, whose time-out counts from byte to byte. A thread makes
each call, so that a server that sends a byte from time to time cannot hold a push.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import requests
import urllib3
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace

from clients.core.errors import UserError, require
from clients.core.shown.secrets import Secrets, checked_token
from clients.core.shown.text import presentable
from clients.core.shown.urls import bare_url
from server.sinks.network import within

Done = Literal["created", "updated", "unchanged", "removed"]
Model = Mapping[str, Any]
T = TypeVar("T")

OLDEST = (11, 1)
"""The oldest Grafana whose XY chart reads the committed dashboards."""

LARGEST_ANSWER = 64 << 20
"""The most bytes of an answer; a dashboard has some hundred thousand."""

LONGEST_REASON = 500
"""The most characters of a server's message."""

_FIX = {
    400: "Report this with the server's version: it refuses what current Grafana documents.",
    401: "The token is wrong, expired, or of another server: make one under Administration, Service accounts.",
    403: "The token may not do this: give its service account the role Admin.",
    404: "Is --url Grafana's own address, with the path it is served under?",
    409: "Something with that name exists already: rename it, or name another folder with --folder.",
    412: "Somebody else changed it, or a plugin or a provisioning file owns it: change it there.",
    429: "Wait a moment and push again; finished parts of the push stay.",
}


class GrafanaServer:
    """One server. Make it with `connect`.

    Args:
        url: its scheme, host and path, for messages.
        face: the package's client.
        secrets: the token; it is removed from every message.
    """

    def __init__(self, url: str, face: Any, secrets: Secrets) -> None:
        self.url, self._face, self._secrets = url, face, secrets

    def require_recent(self) -> str:
        """Return the server's version.

        Raises:
            UserError: the server is not a Grafana, or is older than `OLDEST`.
        """
        health = self._call("its version", lambda: self._face.api.GET("/health"))
        version = str(health.get("version", "")) if isinstance(health, dict) else ""
        number = re.match(r"(\d+)\.(\d+)", version)
        if not isinstance(health, dict) or "database" not in health:
            raise UserError(self.url, "answers, but not as Grafana does", fix=_FIX[404])
        if number and (int(number[1]), int(number[2])) < OLDEST:
            needed = ".".join(map(str, OLDEST))
            raise UserError(self.url, f"is Grafana {version}; the dashboards need {needed}", fix="Update Grafana.")
        return version or "of an unknown version"

    def put_data_source(self, wanted: Model) -> Done:
        """Make or change a data source, found by its uid.

        Raises:
            UserError: the server refuses, or a data source with that name has another uid.
        """
        what = f"data source {wanted['name']!r}"
        known = self._call("its data sources", self._face.datasource.list_datasources)
        found = next((one for one in known if one.get("uid") == wanted["uid"]), None)
        if found is None:
            self._call(what, lambda: self._face.datasource.create_datasource(dict(wanted)))
            return "created"
        if _contains(found, wanted):
            return "unchanged"
        if found.get("readOnly"):
            raise UserError(self.url, f"keeps the {what} in a provisioning file", fix="Change it there.")
        path = f"/datasources/uid/{wanted['uid']}"
        self._call(what, lambda: self._face.api.PUT(path, json=dict(wanted)))
        return "updated"

    def put_folder(self, uid: str, title: str) -> Done:
        """Make or rename a folder of dashboards.

        Raises:
            UserError: the server refuses.
        """
        found = self._call(f"folder {title!r}", lambda: _or_none(lambda: self._face.folder.get_folder(uid)))
        if found is None:
            self._call(f"folder {title!r}", lambda: self._face.folder.create_folder(title, uid))
            return "created"
        if found.get("title") == title:
            return "unchanged"
        self._call(f"folder {title!r}", lambda: self._face.folder.update_folder(uid, title, overwrite=True))
        return "updated"

    def put_dashboard(self, model: Model, folder_uid: str) -> Done:
        """Make a dashboard, or overwrite the one with its uid.

        Args:
            model: the committed JSON; its `id` is null.
            folder_uid: the folder it belongs to.

        Raises:
            UserError: the server refuses.
        """
        what = f"dashboard {model['title']!r}"
        found = self._call(what, lambda: _or_none(lambda: self._face.dashboard.get_dashboard(model["uid"])))
        if found is not None and _same_dashboard(found, model, folder_uid):
            return "unchanged"
        body = {"dashboard": dict(model), "folderUid": folder_uid, "overwrite": True, "message": "fedscape"}
        self._call(what, lambda: self._face.dashboard.update_dashboard(body))
        return "created" if found is None else "updated"

    def put_annotation(self, when: int, tags: Sequence[str], text: str, *, moves: bool = False) -> Done:
        """Make an annotation of the organisation, found again by its tags and moment.

        Args:
            when: milliseconds since 1970.
            tags: together with the moment, they identify the annotation.
            text: the annotation's text.
            moves: the tags alone identify it, so that it is moved to another moment.

        Raises:
            UserError: the server refuses.
        """
        notes = self._face.annotations
        known = [one for one in self._annotations(tags) if set(one.get("tags", ())) == set(tags)]
        same = [one for one in known if moves or one.get("time") == when]
        if not same:
            self._call("an annotation", lambda: notes.add_annotation(time_from=when, tags=list(tags), text=text))
            return "created"
        if same[0].get("text") == text and same[0].get("time") == when:
            return "unchanged"
        number = same[0]["id"]
        change = {"time_from": when, "time_to": when, "tags": list(tags), "text": text}
        self._call("an annotation", lambda: notes.update_annotation(number, **change))
        return "updated"

    def remove_annotations(self, tags: Sequence[str], *, keep: Collection[Sequence[str]]) -> int:
        """Remove the annotations that have some tags, but those whose tags are in `keep`; return how many.

        Raises:
            UserError: the server refuses.
        """
        kept = [set(one) for one in keep]
        gone = [one for one in self._annotations(tags) if set(tags) <= set(one.get("tags", ()))]
        gone = [one for one in gone if set(one["tags"]) not in kept]
        for one in gone:
            self._call("an annotation", partial(self._face.annotations.delete_annotations_by_id, one["id"]))
        return len(gone)

    def _annotations(self, tags: Sequence[str]) -> list[dict[str, Any]]:
        """Return the annotations that have some tags, as the server finds them."""
        find, quoted = self._face.annotations.get_annotation, [quote(tag) for tag in tags]
        found: list[dict[str, Any]] = self._call("its annotations", lambda: list(find(tags=quoted, limit=1000)))
        return found

    def _call(self, what: str, call: Callable[[], T]) -> T:
        """Make a call, and turn its failure into a `UserError`."""
        try:
            return within(self._face.api.timeout, call)
        except GrafanaException as error:
            raise self._refused(what, error) from None
        except requests.exceptions.SSLError:
            raise UserError(
                self.url, "has a certificate that is not trusted", fix="Give --url as http:// or fix it."
            ) from None
        except requests.TooManyRedirects as error:
            problem = f"redirects to {bare_url(self._secrets.hidden(str(error)))}, where the token is not sent"
            raise UserError(self.url, problem, fix="Give --url the address that Grafana itself has.") from None
        except (requests.Timeout, TimeoutError):
            problem = f"did not answer about {what} in {self._face.api.timeout:g} seconds"
            raise UserError(self.url, problem, fix="Is the server up? --timeout gives it longer.") from None
        except requests.ConnectionError:
            raise UserError(self.url, "nothing answers there", fix="Is the server up, and its port in --url?") from None
        except (
            requests.RequestException,
            ValueError,
            TypeError,
            AttributeError,
        ):  # requests and the package raise these for an answer that is not Grafana's
            raise UserError(self.url, "answers, but not as Grafana does", fix=_FIX[404]) from None

    def _refused(self, what: str, error: GrafanaException) -> UserError:
        """Return the `UserError` for a status of 400 or more."""
        code = int(error.status_code)
        message = error.response.get("message", "") if isinstance(error.response, dict) else ""
        reason = f": {presentable(self._secrets.hidden(str(message)))[:LONGEST_REASON]}" if message else ""
        fix = _FIX.get(code, "Its log says why; push again when it works." if code >= 500 else "")
        return UserError(self.url, f"refused {what} with {code}{reason}", fix=fix)


@contextmanager
def connect(url: str, token: str, *, timeout: float = 10.0, option: str = "--url") -> Iterator[GrafanaServer]:
    """Yield a server to push to, and close the connection afterwards. Connecting sends nothing.

    Args:
        url: where Grafana is served, path included, such as `https://example.org/grafana`.
        token: a service account's token.
        timeout: seconds that a request may take.
        option: the option that has the URL, for messages.

    Raises:
        UserError: the URL or the token is not valid.

    Example:
        >>> with connect("localhost:3000", "secret"):
        ...     pass
        Traceback (most recent call last):
        ...
        clients.core.errors.UserError: --url: must start with http:// or https://, got 'localhost:3000'.
    """
    url, shown = url.strip(), bare_url(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UserError(option, f"has an invalid host or port, got {shown!r}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(option, f"must start with http:// or https://, got {shown!r}")
    if parts.username or parts.password:
        raise UserError(option, "must not hold a name or password", fix="Give a token instead: it can be revoked.")
    require(not parts.query, option, f"must not hold a query, got one after {shown!r}", fix="Leave the query out.")
    token = checked_token(token, "FEDSCAPE_GRAFANA_TOKEN")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    prefix = parts.path.strip("/")
    face = GrafanaFace(
        token,
        host=host,
        port=port,
        protocol=parts.scheme,
        url_path_prefix=f"{prefix}/" if prefix else "",
        timeout=timeout,
    )
    # The proxy and the certificates of the environment apply, as they do to a browser that opens the same Grafana. A
    # .netrc file does not: requests reads it only for requests without a login of their own.
    face.api.s.hooks["response"].append(_bounded)
    try:
        yield GrafanaServer(shown, face, Secrets([token]))
    finally:
        face.api.s.close()


def _bounded(response: requests.Response, **_: Any) -> requests.Response:
    """Refuse a redirect before requests follows it, and an answer that is too large before requests reads it."""
    if response.is_redirect:
        response.close()
        raise requests.TooManyRedirects(response.headers["Location"][:200])
    try:
        body = response.raw.read(LARGEST_ANSWER + 1, decode_content=True)
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.Timeout from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError from error
    if len(body) > LARGEST_ANSWER:
        response.close()
        raise requests.RequestException("the answer is too large")
    response.raw = io.BytesIO(body)
    return response


def _or_none(call: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Return the result of `call`, or None if the server answers 404."""
    try:
        return call()
    except GrafanaException as error:
        if error.status_code != 404:
            raise
        return None


def _contains(found: Any, wanted: Any) -> bool:
    """Return whether every wanted key has its value; the server adds keys of its own."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(key in found and _contains(found[key], wanted[key]) for key in wanted)
    return bool(found == wanted)


def _same_dashboard(found: Mapping[str, Any], model: Model, folder_uid: str) -> bool:
    """Return whether the server has this dashboard already, apart from the numbers that the server assigns."""
    own = ("id", "version")
    there = {key: value for key, value in found.get("dashboard", {}).items() if key not in own}
    ours = {key: value for key, value in model.items() if key not in own}
    return there == ours and found.get("meta", {}).get("folderUid") == folder_uid
