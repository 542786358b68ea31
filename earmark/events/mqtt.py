"""Notices to an MQTT broker (extra ``mqtt``: paho-mqtt).

Conventions: MQTT 5, quality of service 1: a message is sent again after a reconnection until the broker has
confirmed it, so it may arrive twice. What cannot be delivered is counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from earmark.errors import EarmarkError, extra

PORTS = {"mqtt": 1883, "mqtts": 8883}
LONGEST_QUEUE = 10_000
"""Messages that wait for the broker at most."""
FIRST_RETRY_S, LAST_RETRY_S = 1, 60
"""Wait before a reconnection; it doubles with each attempt."""
CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Address:
    """Where messages go.

    Args:
        host: Name or address of the broker.
        port: Its port.
        topic: Topic of the messages.
        tls: Whether the connection is encrypted.
        user: Name of the user; None: none.
        password: Of the user.
    """

    host: str
    port: int
    topic: str
    tls: bool = False
    user: str | None = None
    password: str | None = None

    @property
    def broker(self) -> str:
        """Host and port, for messages."""
        return f"MQTT broker {self.host}:{self.port}"


def parse_address(url: str, password: str | None = None) -> Address:
    """Parses mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC.

    Args:
        url: The URL; user and password with percent escapes.
        password: Taken if the URL has a user without a password.

    Raises:
        EarmarkError: If it is not such a URL.
    """
    try:
        parts = urlsplit(url, allow_fragments=False)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    topic = unquote(parts.path[1:])
    if not (parts.scheme in PORTS and parts.hostname and topic) or parts.query or set("+#\0") & set(topic):
        raise EarmarkError(
            "the address of a broker must be mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC (mqtts:// for TLS), "
            f"the topic without +, # and ?, got {_without_password(url)!r}"
        )
    user = unquote(parts.username) if parts.username else None
    own = unquote(parts.password) if parts.password else password
    return Address(parts.hostname, port, topic, parts.scheme == "mqtts", user, own)


class Publisher:
    """Publishes messages on one topic while the connection comes and goes.

    Args:
        address: Broker and topic.

    Attributes:
        lost: Messages that will not arrive: refused by the broker, or more than fit into the queue.

    Raises:
        EarmarkError: If the broker cannot be reached, or refuses the connection.
        MissingExtraError: If paho-mqtt is not installed.
    """

    def __init__(self, address: Address) -> None:
        with extra("MQTT", "mqtt"):
            from paho.mqtt import client as mqtt
            from paho.mqtt.enums import CallbackAPIVersion
        self.lost = 0
        self._address = address
        self._lock = threading.Lock()
        self._reports: deque[str] = deque()
        self._waiting = 0
        self._is_full = self._is_closing = False
        self._refusal: str | None = None
        self._answered = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.max_queued_messages_set(LONGEST_QUEUE)
        self._client.reconnect_delay_set(FIRST_RETRY_S, LAST_RETRY_S)
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        if address.user is not None:
            self._client.username_pw_set(address.user, address.password)
        if address.tls:
            self._client.tls_set()
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_publish = self._published
        self._connect()

    @property
    def waiting(self) -> int:
        """Messages that the broker has not confirmed yet."""
        return self._waiting

    def publish(self, message: str) -> None:
        """Sends a message as soon as there is a connection."""
        with self._lock:
            self._waiting += 1
        info = self._client.publish(self._address.topic, message.encode(), qos=1)
        if info.rc == _queue_is_full():
            self._lose(1)
            if not self._is_full:
                self._is_full = True
                self._report(f"{LONGEST_QUEUE} messages wait: further ones are lost until it answers again")

    def reports(self) -> list[str]:
        """What happened to the connection since the last call, one line each."""
        found = []
        while self._reports:
            found.append(self._reports.popleft())
        return found

    def close(self, timeout_s: float = 5.0) -> int:
        """Waits for the broker to confirm what was sent, and disconnects.

        Args:
            timeout_s: Longest wait in seconds.

        Returns:
            How many messages did not arrive, of all that were published.
        """
        end = time.monotonic() + timeout_s
        while self._waiting and time.monotonic() < end:
            time.sleep(0.02)
        self._is_closing = True
        self._client.disconnect()
        self._client.loop_stop()
        return self.lost + self._waiting

    def _connect(self) -> None:
        broker = self._address.broker
        try:
            self._client.connect(self._address.host, self._address.port, keepalive=30)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise EarmarkError(f"{broker}: cannot be reached ({why})") from error
        self._client.loop_start()
        if not self._answered.wait(CONNECT_TIMEOUT_S):
            self._refusal = f"does not answer within {CONNECT_TIMEOUT_S:g} s: is it an MQTT broker?"
        if self._refusal is not None:
            self._is_closing = True
            self._client.disconnect()
            self._client.loop_stop()
            raise EarmarkError(f"{broker}: {self._refusal}")

    # The callbacks run in the client's thread.
    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._answered.is_set():
            self._is_full = self._is_full and reason.is_failure
            self._report(f"refuses the connection ({reason})" if reason.is_failure else "connected again")
        elif reason.is_failure:
            self._refusal = f"refuses the connection ({reason})"
        self._answered.set()

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._answered.is_set() and not self._is_closing:
            self._report(f"connection lost ({reason}); {self._waiting} messages wait, trying again")
        elif not self._is_closing:
            self._refusal = f"refuses the connection ({reason})"
            self._answered.set()

    def _published(self, _client: Any, _data: Any, _number: int, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._lose(1)
            self._report(f"refuses a message ({reason})")
            return
        with self._lock:
            self._waiting -= 1

    def _lose(self, count: int) -> None:
        with self._lock:
            self._waiting -= count
            self.lost += count

    def _report(self, line: str) -> None:
        self._reports.append(f"{self._address.broker}: {line}")


def _queue_is_full() -> Any:
    from paho.mqtt.enums import MQTTErrorCode

    return MQTTErrorCode.MQTT_ERR_QUEUE_SIZE


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    scheme, colon, user = head.partition("://")
    return f"{scheme}{colon}{user.partition(':')[0]}{at}{tail}"
