from pydantic import AwareDatetime, BaseModel, Field

from shared.channels import Channel
from shared.provider_states import ProviderCondition


class ConsumerResponse(BaseModel):
    """The backlog of a consumer."""

    stream: str = Field(examples=["OUTBOUND"])
    name: str = Field(examples=["ingest-outbound"])
    pending: int | None = Field(
        description="Messages that no process has received yet; null if the consumer is missing", examples=[0]
    )
    ack_pending: int | None = Field(description="Messages that are being processed", examples=[0])


class ProviderResponse(BaseModel):
    """The state of a provider in all sender processes."""

    name: str = Field(examples=["generic_sms"])
    channel: Channel
    state: ProviderCondition = Field(description="The worst state in any process")
    until: AwareDatetime | None = Field(
        description="The next request to it, unless it is healthy", examples=[None]
    )
    in_progress: int = Field(description="Messages that are being sent", examples=[0])
    concurrency: int = Field(description="Messages that may be sent at the same time", examples=[96])
    rate: float | None = Field(description="Limit of requests per second", examples=[None])
    paused_senders: int = Field(description="Sending addresses that are paused at its request", examples=[0])
    processes: int = Field(description="Sender processes that use it", examples=[1])


class SendingLimitResponse(BaseModel):
    """A limit that some sending addresses share (`SENDER_LIMITS`)."""

    name: str = Field(description="Name of the limit", examples=["+12016661234"])
    senders: list[str] = Field(
        description="Numbers, e-mail addresses, or `@domain` for all addresses of a domain",
        examples=[["+12016661234"]],
    )
    rate: float | None = Field(
        description="Segments, or e-mails, per second; null if there is no limit", examples=[1.0]
    )
    per_day: int | None = Field(
        description="Segments, or e-mails, per day (UTC); null if there is no limit", examples=[2000]
    )


class TrafficSeries(BaseModel):
    """The messages of a kind, minute by minute."""

    channel: Channel
    provider: str | None = Field(description="Null if no provider is known", examples=["generic_sms"])
    kind: str = Field(description="`received`, or a status that messages have reached", examples=["sent"])
    counts: list[int] = Field(description="The number in each of the minutes", examples=[[0, 3, 5]])


class TrafficResponse(BaseModel):
    """The messages of the last hour."""

    minutes: list[AwareDatetime] = Field(description="The beginning of each minute, the current one last")
    series: list[TrafficSeries]


class OperationsResponse(BaseModel):
    """The state of the consumers and of the providers, and the limits of sending addresses."""

    consumers: list[ConsumerResponse]
    providers: list[ProviderResponse]
    sending_limits: list[SendingLimitResponse]
