"""The answers of the server, for its description in OpenAPI.

Conventions: times are seconds from the start of the recording; scores lie in [0, 1].
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Score = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class ErrorFacts(BaseModel):
    """What went wrong."""

    code: str = Field(description="For programs, such as unsupported_audio.")
    message: str = Field(description="For people: one line with what was wrong and what helps.")


class ErrorAnswer(BaseModel):
    """The body of every error."""

    error: ErrorFacts


class ModelCard(BaseModel):
    """A model of this server."""

    name: str
    summary: str
    num_labels: int
    labels: list[str]
    task: Literal["multi_label", "single_label"]
    sample_rate_hz: int
    window_s: float
    threshold: Score | None = Field(
        description="Score from which a label counts as detected, if it is the same for all."
    )
    thresholds: list[Score] | None = Field(description="Score from which each label counts as detected.")
    calibrated: bool = Field(description="Whether scores are probabilities.")
    licence: str
    default: bool = Field(description="Whether requests that name no model get this one.")


class ModelsAnswer(BaseModel):
    """The models of this server."""

    models: list[ModelCard]


class ScoredLabel(BaseModel):
    """A label and its score."""

    label: str
    score: Score


class Tag(ScoredLabel):
    """A label, its score, and the window in which it was highest."""

    start_s: Seconds
    end_s: Seconds


class TaggedWindow(BaseModel):
    """The tags of one window."""

    start_s: Seconds
    end_s: Seconds
    tags: list[ScoredLabel]


class TagAnswer(BaseModel):
    """The tags of a recording, highest score first."""

    model: str
    duration_s: Seconds
    tags: list[Tag]
    windows: list[TaggedWindow] | None = Field(None, description="With windows=true.")
    warnings: list[str] = Field(description="Faults of the recording that did not prevent an answer.")


class Event(BaseModel):
    """A sound with a start and an end."""

    label: str
    start_s: Seconds
    end_s: Seconds
    peak: Score
    mean: Score
    resolution_s: Seconds = Field(description="Length of sound that one score is computed from.")


class ScoresAlongTime(BaseModel):
    """Scores of the labels that anywhere reach 0.05; step k starts at start_s + k * hop_s."""

    start_s: Seconds
    hop_s: Seconds
    resolution_s: Seconds
    labels: list[str]
    thresholds: list[Score] = Field(description="Score that starts an event of each label.")
    scores: list[list[Score]] = Field(description="For each step a score for each label.")


class EventsAnswer(BaseModel):
    """The events of a recording, in order of start."""

    model: str
    duration_s: Seconds
    events: list[Event]
    timeline: ScoresAlongTime | None = Field(None, description="With timeline=true.")
    warnings: list[str]


class EmbeddedWindow(BaseModel):
    """The embedding of one window."""

    start_s: Seconds
    end_s: Seconds
    embedding: list[float]


class EmbedAnswer(BaseModel):
    """The embedding of a recording: the mean over its windows."""

    model: str
    duration_s: Seconds
    embedding: list[float]
    windows: list[EmbeddedWindow] | None = Field(None, description="With windows=true.")
    warnings: list[str]


class Health(BaseModel):
    """The server runs."""

    status: Literal["ok", "stopping"]
