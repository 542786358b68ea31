"""MQTT against a real broker: delivery, reconnection, refusals, and what is lost is counted."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from earmark.errors import EarmarkError
from earmark.events import mqtt
from earmark.events.mqtt import Address, Publisher, parse_address

client = pytest.importorskip("paho.mqtt.client", reason="the extra mqtt is not installed")

MOSQUITTO = shutil.which(
    "mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin"
)
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="the broker mosquitto is not installed")


class Broker:
    """A broker of its own, on a free port, that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.config = folder / "mosquitto.conf"
        self.configure("allow_anonymous true")
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, *lines: str) -> None:
        self.config.write_text("\n".join(["user root", f"listener {self.port} 127.0.0.1", *lines, ""]))

    def start(self) -> None:
        command = [str(MOSQUITTO), "-c", str(self.config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(timeout=20)
            self._process = None

    def url(self, topic: str = "home/sounds", user: str = "") -> str:
        return f"mqtt://{user}127.0.0.1:{self.port}/{topic}"

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def wait_until(is_so: Callable[[], object]) -> None:
    for _ in range(3000):
        if is_so():
            return
        time.sleep(0.01)
    pytest.fail("this took longer than 30 s")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def received(broker: Broker) -> Iterator[list[str]]:
    """The messages that a subscriber gets, which reconnects too."""
    messages: list[str] = []
    is_subscribed = threading.Event()
    reader = client.Client(client.CallbackAPIVersion.VERSION2)
    reader.on_connect = lambda one, *_: one.subscribe("home/#", qos=1)
    reader.on_subscribe = lambda *_: is_subscribed.set()
    reader.on_message = lambda _one, _data, message: messages.append(message.payload.decode())
    reader.reconnect_delay_set(1, 1)
    reader.connect("127.0.0.1", broker.port)
    reader.loop_start()
    assert is_subscribed.wait(30)
    yield messages
    reader.disconnect()
    reader.loop_stop()


@needs_broker
def test_messages_arrive_in_order(broker: Broker, received: list[str]) -> None:
    publisher = Publisher(parse_address(broker.url()))
    for number in range(50):
        publisher.publish(f"{number} ä")
    assert publisher.close() == 0
    wait_until(lambda: len(received) == 50)
    assert received == [f"{number} ä" for number in range(50)]


@needs_broker
def test_what_was_published_without_a_connection_arrives_after_it_is_back(broker: Broker) -> None:
    publisher = Publisher(parse_address(broker.url()))
    broker.stop()
    reports: list[str] = []
    wait_until(lambda: reports.extend(publisher.reports()) or reports)
    assert "connection lost" in reports[0]
    for number in range(5):
        publisher.publish(str(number))
    assert publisher.waiting == 5
    broker.start()
    wait_until(lambda: not publisher.waiting)
    wait_until(lambda: reports.extend(publisher.reports()) or len(reports) > 1)
    assert "connected again" in reports[-1]
    assert publisher.close() == 0


@needs_broker
def test_what_does_not_arrive_is_counted(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "LONGEST_QUEUE", 3)
    publisher = Publisher(parse_address(broker.url()))
    broker.stop()
    reports: list[str] = []
    wait_until(lambda: reports.extend(publisher.reports()) or reports)
    for number in range(40):
        publisher.publish(str(number))
    assert publisher.lost > 0
    assert publisher.lost + publisher.waiting == 40
    assert len([line for line in publisher.reports() if "further ones are lost" in line]) == 1
    assert publisher.close(timeout_s=0.1) == 40


@needs_broker
def test_a_broker_that_refuses(broker: Broker) -> None:
    broker.stop()
    with pytest.raises(EarmarkError, match=rf"MQTT broker 127.0.0.1:{broker.port}: cannot be reached"):
        Publisher(parse_address(broker.url()))
    broker.configure("allow_anonymous false")
    broker.start()
    with pytest.raises(EarmarkError, match="refuses the connection"):
        Publisher(parse_address(broker.url(user="me:wrong@")))


@needs_broker
def test_a_topic_that_is_not_allowed(broker: Broker, tmp_path: Path) -> None:
    broker.stop()
    (tmp_path / "acl").write_text("topic write home/#\n")
    broker.configure("allow_anonymous true", f"acl_file {tmp_path / 'acl'}")
    broker.start()
    publisher = Publisher(parse_address(broker.url("office/sounds")))
    publisher.publish("x")
    wait_until(lambda: publisher.lost == 1)
    assert "refuses a message" in publisher.reports()[0]
    assert publisher.close() == 1


def test_something_else_on_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EarmarkError, match="is it an MQTT broker"):
            Publisher(Address("127.0.0.1", port, "x"))


def test_addresses() -> None:
    assert parse_address("mqtt://host/a/b%20c") == Address("host", 1883, "a/b c")
    assert parse_address("mqtts://me:p%40ss@host:99/t", "other") == Address(
        "host", 99, "t", True, "me", "p@ss"
    )
    assert parse_address("mqtt://me@host/t", "secret").password == "secret"
    for wrong in (
        "host/t",
        "http://host/t",
        "mqtt://host",
        "mqtt:///t",
        "mqtt://host:x/t",
        "mqtt://host/a/#",
        "mqtt://host/a?b",
    ):
        with pytest.raises(EarmarkError, match="HOST"):
            parse_address(wrong)
    with pytest.raises(EarmarkError) as raised:
        parse_address("mqtt://me:secret@host")
    assert "secret" not in str(raised.value)
