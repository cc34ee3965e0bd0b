"""The [mqtt] table of config.toml: the broker, and what is published there."""

from typing import Annotated, Literal

from shmcam.config.optional_program import Need, OptionalProgram
from shmcam.config.schema import Section, setting
from shmcam.control.messages import topics_of

TOPIC_LEVELS = r"^[A-Za-z0-9_-]{1,32}(/[A-Za-z0-9_-]{1,32}){0,3}$"
"""The pattern of a topic that all others begin with: one to four levels without wildcards."""

NOT_DEVICES = frozenset({"all", "reply"})
"""Levels of topics in the place of a device's name (shmcam.mqtt.topics)."""


class MqttSettings(OptionalProgram, frozen=True):
    """The [mqtt] table."""

    host: Annotated[str, setting("host name or address of the broker", max_length=253)] = "127.0.0.1"
    port: Annotated[int, setting("TCP port of the broker; 0: 1883, with tls 8883", ge=0, le=65535, apply="file")] = 0
    username: Annotated[str, setting("name for the broker; empty: none", max_length=256)] = ""
    password: Annotated[str, setting("password for the broker", secret=True, max_length=256)] = ""
    tls: Annotated[bool, setting("encrypt, and check the broker's certificate", apply="file")] = False
    tls_ca: Annotated[
        str,
        setting("certificates (PEM) that the broker's is checked with; empty: those of the system", max_length=4096),
    ] = ""
    tls_cert: Annotated[str, setting("our certificate (PEM), if the broker wants one", max_length=4096)] = ""
    tls_key: Annotated[str, setting("its private key (PEM)", max_length=4096)] = ""
    device: Annotated[
        str,
        setting(
            "name of this machine at the broker, different for each; empty: its host name",
            pattern=r"^[A-Za-z0-9_-]{0,32}$",
            form="letters, digits, _ and -, at most 32",
        ),
    ] = ""
    prefix: Annotated[
        str,
        setting("the topics begin with it", pattern=TOPIC_LEVELS, form="levels of letters, digits, _ and -"),
    ] = "shmcam"
    discovery: Annotated[bool, setting("announce each camera to Home Assistant as a device")] = True
    discovery_prefix: Annotated[
        str,
        setting("Home Assistant's discovery topic", pattern=TOPIC_LEVELS, form="levels of letters, digits, _ and -"),
    ] = "homeassistant"
    page_url: Annotated[
        str,
        setting(
            "address of the web page, for Home Assistant's device page; empty: none",
            pattern=r"^(https?://[^\s]{1,250})?$",
            form="http://… or https://…",
        ),
    ] = ""
    commands: Annotated[
        Literal["none", "control", "all"],
        setting(
            "what may be asked over the broker: nothing; pictures, recordings, night and status; or settings and "
            "deleting, too",
            apply="file",
        ),
    ] = "control"
    events: Annotated[
        tuple[Annotated[str, setting("an event or a group of events", max_length=32)], ...],
        setting("events that are published, such as motion, clip_closed; as for `subscribe`"),
    ] = ("all",)
    queue: Annotated[
        int, setting("events kept while the broker is away; beyond it the oldest are dropped", ge=1, le=100_000)
    ] = 1000
    state_s: Annotated[
        float, setting("the figures of each camera are published so often", unit="s", ge=0.5, le=3600)
    ] = 5.0
    health_s: Annotated[float, setting("the health of the device is published so often", unit="s", ge=1, le=3600)] = (
        30.0
    )
    image_s: Annotated[
        float, setting("a picture is published so often, and when motion begins; 0: never", unit="s", ge=0, le=86_400)
    ] = 30.0

    def __post_init__(self) -> None:
        """Refuses what contradicts itself. Raises: ValueError."""
        if not self.host:
            raise ValueError("host must name the broker")
        if self.device in NOT_DEVICES:
            raise ValueError(f"device = {self.device!r} is a word of the topics; take another name")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together")
        if not self.tls and (self.tls_ca or self.tls_cert):
            raise ValueError("tls_ca and tls_cert need tls = true")
        topics_of(self.events)

    def list_needs(self) -> tuple[Need, ...]:
        """Returns the client library."""
        return (Need.of_extra("aiomqtt", "mqtt"),)

    @property
    def port_in_use(self) -> int:
        """The TCP port, 0 replaced."""
        return self.port or (8883 if self.tls else 1883)


TABLES: dict[str, type[Section]] = {"mqtt": MqttSettings}
