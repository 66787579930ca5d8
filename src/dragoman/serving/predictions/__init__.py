"""Asynchronous predictions of any model, durable once they are answered with an id. Dialects get `Predictions` as Services.predictions.

service.py is what they call; work.py runs what this worker owns, keeper.py looks after the rest from second to second.
"""

from dragoman.serving.predictions.limits import Limits, Parts
from dragoman.serving.predictions.service import Predictions
from dragoman.serving.predictions.views import Event, View

__all__ = ["Event", "Limits", "Parts", "Predictions", "View"]
